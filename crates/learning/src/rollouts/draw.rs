//! From what a user asks for to a plan with its prompts: what the command line and the Python package share.

use stackelberg_decoding::{Policy, Settings};
use stackelberg_engine::Reward;
use stackelberg_engine::reward::TextFormat;
use stackelberg_registry::names::shown;
use stackelberg_registry::{PolicySpec, layout};

use super::collect::Prompt;
use super::manifest::{Identity, Manifest};
use super::plan::Plan;
use crate::error::Error;

/// Rollouts that a user asks for.
pub struct Draw<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// What it was loaded as.
    pub spec: &'a PolicySpec,
    /// The reward, if samples are scored, and its identity.
    pub reward: Option<(&'a Reward, Identity)>,
    /// The prompt format; by default the one that the reward was trained on.
    pub format: Option<TextFormat>,
    /// The system message.
    pub system: Option<&'a str>,
    /// How samples are drawn.
    pub settings: Settings,
    /// Whether hidden states are kept.
    pub hidden: bool,
    /// Prompts per shard.
    pub prompts_per_shard: usize,
}

/// Rollouts that are ready to be drawn.
pub struct Prepared {
    /// The manifest of their dataset.
    pub manifest: Manifest,
    /// The prompts as the policy reads them.
    pub prompts: Vec<Prompt>,
    /// How samples are drawn.
    pub settings: Settings,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Checks that a policy can give hidden states, if they are to be kept. `model` is its name.
///
/// # Errors
/// A server runs the policy, and none beside it gives the states of all tokens.
pub fn check_hidden(policy: &Policy, model: &str, hidden: bool) -> Result<(), Error> {
    match hidden && policy.width().is_none() {
        true => Err(Error::ServerHidden { model: shown(model) }),
        false => Ok(()),
    }
}

impl Draw<'_> {
    /// Chooses the prompt format and lays out the prompts.
    ///
    /// # Errors
    /// A setting is out of range, the policy gives no hidden states, or the template refuses a prompt, which the error names.
    pub fn prepare(self, prompts: &[(String, stackelberg_engine::Prompt)]) -> Result<Prepared, Error> {
        check_hidden(self.policy, &self.spec.name, self.hidden)?;
        let (reward, identity) = self.reward.unzip();
        let (format, mut warnings) = layout::text_format(self.format, self.policy, reward.into());
        self.settings.check(self.policy.vocabulary())?;
        let plan = Plan {
            policy: self.policy,
            model: shown(&self.spec.name),
            dtype: self.spec.recorded_dtype(),
            device: self.spec.recorded_device(),
            reward: identity,
            format,
            system: self.system,
            settings: self.settings,
            hidden: self.hidden,
            prompts_per_shard: self.prompts_per_shard,
        };
        let prompts = plan.lay_out(prompts)?;
        let tokens = prompts.iter().map(|prompt| &prompt.tokens[..]);
        warnings.extend(layout::odd_tokens(self.policy, format, "prompt", tokens));
        let manifest = plan.manifest(&prompts);
        Ok(Prepared { manifest, prompts, settings: plan.settings, warnings })
    }
}
