//! Loads rewards by name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stackelberg_decoding::Policy;
use stackelberg_engine::reward::{
    Backbone, Classifier, Combined, EmbeddedHead, ForeignModel, Head, RewardModel, TextReward,
};
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_remote::{HttpReward, ProgramReward};

use crate::builtin::{BUILTIN, Builtin};
use crate::error::{Error, Result};
use crate::heads::states_of;
use crate::names::{combination, is_unknown, shown, split_format, split_label};
use crate::registry::Registry;

/// Timeout of a request to a reward server.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Registry {
    /// Loads a reward for a policy, or a combination of several. `dtype` is the data type of reward models.
    ///
    /// # Errors
    /// The name is malformed or unknown; a part cannot be loaded or does not fit the policy.
    pub fn reward(&self, name: &str, policy: impl Into<Policy>, dtype: Dtype) -> Result<Reward> {
        let policy = &policy.into();
        let combination = combination(name)?;
        if let Some(name) = combination.only() {
            return self.one_reward(name, policy, dtype);
        }
        let rewards = combination.names().iter().map(|name| self.one_reward(name, policy, dtype));
        let rewards = rewards.collect::<Result<_>>().map_err(|error| {
            let name = shown(name);
            error.within(format!("'{name}' (a name with operators or spaces must be in double quotes)"))
        })?;
        Ok(Reward::Combined(Arc::new(Combined::new(combination.renamed(shown), rewards))))
    }

    /// Loads a reward that is a single head on the policy's hidden states, without the policy. A recorded reward is
    /// identified by its name and hash.
    ///
    /// # Errors
    /// A sentence says why there is no such head: the reward is of another kind, cannot be loaded, or has another hash.
    pub fn recorded_head(&self, name: &str, hash: &str) -> std::result::Result<Head, String> {
        let head = match Builtin::find(name) {
            Some(builtin) => Head::parse(Path::new(name), builtin.bytes),
            None if Path::new(name).extension().is_some_and(|end| end == "safetensors") => {
                Head::load(&self.fetch(name).map_err(|error| error.to_string())?)
            }
            None => return Err(format!("'{name}' is not a head on the policy's hidden states")),
        };
        let head = head.map_err(|error| error.to_string())?;
        if head.backbone != Backbone::Policy {
            return Err(format!("'{name}' is not a head on the policy's hidden states"));
        }
        match self.reward_hash(name) {
            Ok(own) if own == hash => Ok(head),
            Ok(_) => Err(format!("'{name}' is not the reward of the dataset: its hash differs")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The cards of the heads that a reward consists of: the name of each, and its card (Markdown). The card of a file is the
    /// file beside it whose name ends in `.md`. Rewards without a card are left out.
    ///
    /// # Errors
    /// The name is malformed.
    pub fn reward_cards(&self, name: &str) -> Result<Vec<(String, String)>> {
        let card = |name: &String| {
            let bare = split_label(split_format(name).1).0;
            let text = match Builtin::find(bare) {
                Some(builtin) => builtin.card.to_owned(),
                None => std::fs::read_to_string(Path::new(bare).with_extension("md")).ok()?,
            };
            Some((shown(name), text))
        };
        Ok(combination(name)?.names().iter().filter_map(card).collect())
    }

    /// Loads one reward: a built-in name, a head, a model folder, or a reward that reads text.
    ///
    /// # Errors
    /// As [`Registry::reward`].
    pub fn one_reward(&self, name: &str, policy: &Policy, dtype: Dtype) -> Result<Reward> {
        if let Some(reward) = self.text_reward(name)? {
            return Ok(Reward::Text(Arc::new(reward)));
        }
        let (format, name) = split_format(name);
        if let Some(format) = format {
            return match self.one_reward(name, policy, dtype)? {
                Reward::Text(reward) => Ok(Reward::Text(Arc::new(reward.with_format(format)?))),
                // With a format before its name, a reward model reads text instead of the policy's tokens.
                Reward::Model(model) => {
                    let reward = TextReward::new(ForeignModel::of(RewardModel::clone(&model)))
                        .with_format(format)?;
                    Ok(Reward::Text(Arc::new(reward)))
                }
                _ => Err(Error::Name(format!(
                    "{format}:{name}: a head reads the policy's own tokens, not text: give it as {name}, and select \
                     the format with --prompt-format"
                ))),
            };
        }
        if let Some(builtin) = Builtin::find(name) {
            let head = Head::parse(Path::new(name), builtin.bytes)?;
            let fits = match policy {
                Policy::Local(policy) => head.fits(policy).map_err(Error::from),
                Policy::Remote(policy) => {
                    let states = states_of(name, policy)?;
                    self.fits_states(name, (head.width(), head.base.as_deref()), states, policy)
                }
            };
            fits.map_err(|error| {
                error.within(format!(
                    "the built-in reward '{name}' is for {}; train one for your model with `stackelberg train reward`",
                    builtin.base
                ))
            })?;
            return Ok(Reward::Head(Arc::new(head)));
        }
        if is_unknown(name) {
            let known: Vec<&str> = BUILTIN.iter().map(|b| b.name).collect();
            return Err(Error::Name(format!(
                "unknown reward '{name}': known are {}; or give a head (.safetensors) or a folder",
                known.join(", ")
            )));
        }
        let (file, label) = split_label(name);
        let path = self.fetch(file)?;
        Ok(match policy {
            Policy::Local(policy) => Reward::load_label(&path, label, policy, dtype)?,
            // A reward model reads text here: its tokens are its own.
            Policy::Remote(_) if path.is_dir() => {
                let model = ForeignModel::new(Checkpoint::load(&path, dtype)?, label)?;
                Reward::Text(Arc::new(TextReward::new(model)))
            }
            Policy::Remote(policy) => {
                if let Some(label) = label {
                    let problem = format!("{file}: a head has no labels: leave out '#{label}'");
                    return Err(Error::Name(problem));
                }
                let (head, states) = (Head::load(&path)?, states_of(name, policy)?);
                self.fits_states(name, (head.width(), head.base.as_deref()), states, policy)?;
                Reward::Head(Arc::new(head))
            }
        })
    }

    /// Loads a reward that reads text and so fits any policy: a classifier, a head on an embedder, a program or a server.
    /// Returns `None` if the name is that of another kind of reward. A server scores two short texts first, see
    /// [`HttpReward::check`].
    ///
    /// # Errors
    /// The reward cannot be fetched, loaded or started, or does not support the format before its name; a server does not
    /// answer as it should.
    pub fn text_reward(&self, name: &str) -> Result<Option<TextReward>> {
        let (format, name) = split_format(name);
        let reward = self.reader_of_text(name)?;
        Ok(match format {
            Some(format) => reward.map(|reward| reward.with_format(format)).transpose()?,
            None => reward,
        })
    }

    fn reader_of_text(&self, name: &str) -> Result<Option<TextReward>> {
        if let Some(command) = name.strip_prefix("program:") {
            return Ok(Some(TextReward::new(ProgramReward::start(command)?)));
        }
        if HttpReward::is_address(name) {
            let reward = HttpReward::new(name, self.reward_key.clone(), TIMEOUT)?;
            if self.checks {
                reward.check()?.warnings.iter().for_each(|warning| self.warn(warning));
            }
            return Ok(Some(TextReward::new(reward)));
        }
        let head = match Builtin::find(name) {
            Some(builtin) => Head::parse(Path::new(name), builtin.bytes)?,
            None if is_unknown(name) => return Ok(None),
            None => match self.fetch(split_label(name).0)? {
                path if path.extension().is_some_and(|end| end == "safetensors") => Head::load(&path)?,
                path if Classifier::is_in(&path) => {
                    let classifier = Classifier::load(&path, split_label(name).1)?;
                    return Ok(Some(TextReward::new(classifier)));
                }
                _ => return Ok(None),
            },
        };
        if head.backbone == Backbone::Policy {
            return Ok(None);
        }
        let Some(base) = head.base_name.clone() else {
            return Err(Error::Name(format!(
                "{name}: this head on an embedder does not state which one (base_name is missing)"
            )));
        };
        let embedder = self
            .embedder(&base)
            .map_err(|error| error.within(format!("{name} reads the embedder {base}")))?;
        Ok(Some(TextReward::new(EmbeddedHead::new(head, embedder)?)))
    }
}
