//! Loads rewards by name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stackelberg_engine::reward::{
    Backbone, Classifier, Combined, EmbeddedHead, ForeignModel, Head, RewardModel, TextReward,
};
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_remote::{HttpReward, ProgramReward};

use crate::builtin::{BUILTIN, Builtin};
use crate::error::{Error, Result};
use crate::names::{combination, is_unknown, split_format, split_label};
use crate::registry::Registry;

/// Longest wait for an answer of a reward server.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Registry {
    /// Loads a reward for a policy, or a combination of several. `dtype` is that of reward models.
    ///
    /// # Errors
    /// The name is malformed or unknown; a part cannot be loaded or does not fit the policy.
    pub fn reward(&self, name: &str, policy: &Checkpoint, dtype: Dtype) -> Result<Reward> {
        let combination = combination(name)?;
        if let Some(name) = combination.only() {
            return self.one_reward(name, policy, dtype);
        }
        let rewards = combination.names().iter().map(|name| self.one_reward(name, policy, dtype));
        let rewards = rewards.collect::<Result<_>>().map_err(|error| {
            error.within(format!("'{name}' (a name with signs or spaces in it stands in double quotes)"))
        })?;
        Ok(Reward::Combined(Arc::new(Combined::new(combination, rewards))))
    }

    /// Loads one reward: a built-in name, a head, a model folder, or what reads text.
    ///
    /// # Errors
    /// As [`Registry::reward`].
    pub fn one_reward(&self, name: &str, policy: &Checkpoint, dtype: Dtype) -> Result<Reward> {
        if let Some(reward) = self.text_reward(name)? {
            return Ok(Reward::Text(Arc::new(reward)));
        }
        let (format, name) = split_format(name);
        if let Some(format) = format {
            return match self.one_reward(name, policy, dtype)? {
                Reward::Text(reward) => {
                    let reward = TextReward::clone(&reward).with_format(format)?;
                    Ok(Reward::Text(Arc::new(reward)))
                }
                // Instead of the policy's tokens it reads text, laid out as asked.
                Reward::Model(model) => {
                    let reward = TextReward::new(ForeignModel::of(RewardModel::clone(&model)))
                        .with_format(format)?;
                    Ok(Reward::Text(Arc::new(reward)))
                }
                _ => Err(Error::Name(format!(
                    "{format}:{name}: a head reads the policy's own tokens, not text: give it as {name}, and \
                     choose the layout with --prompt-format"
                ))),
            };
        }
        if let Some(builtin) = Builtin::find(name) {
            let head = Head::parse(Path::new(name), builtin.bytes)?;
            head.fits(policy).map_err(|error| {
                Error::from(error).within(format!(
                    "the built-in reward '{name}' is made for {}; train one with `stackelberg train reward`",
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
        Ok(Reward::load_label(&self.fetch(file)?, label, policy, dtype)?)
    }

    /// Loads a reward that reads text, whatever the policy: a classifier, a head on an embedder, a program, a server;
    /// `None` if the name is that of another kind of reward.
    ///
    /// # Errors
    /// It cannot be fetched, loaded or started, or does not read the format before its name.
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
                "{name}: a head on an embedder that does not say which (base_name is missing)"
            )));
        };
        let embedder = self
            .embedder(&base)
            .map_err(|error| error.within(format!("{name} reads the embedder {base}")))?;
        Ok(Some(TextReward::new(EmbeddedHead::new(head, embedder)?)))
    }
}
