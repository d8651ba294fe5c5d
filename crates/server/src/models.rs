//! What is loaded: the policy, and rewards and value heads by the names that the operator gave them.
//!
//! Requests name rewards, or combine them in expressions such as `kind*0.7+short*0.3`. Nothing that a request says is ever
//! resolved as a file, a program or an address.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use stackelberg_decoding::Policy;
use stackelberg_engine::Reward;
use stackelberg_engine::reward::{Combination, Combined, ValueHead};
use stackelberg_registry::guidance::{GuidanceSpec, known};
use stackelberg_registry::names::is_plain;
use stackelberg_registry::{PolicySpec, Registry};

use crate::error::{ApiError, Error, Result};

/// Combinations that are kept, so that requests with the same expression share forward passes.
const KEPT: usize = 64;
/// Bytes of an expression.
const EXPRESSION: usize = 1000;

/// A policy, rewards and value heads.
pub struct Models {
    /// The policy's name in requests.
    pub name: String,
    pub(crate) policy: Policy,
    rewards: Vec<(String, Reward)>,
    values: Vec<(String, Arc<ValueHead>)>,
    combined: Mutex<HashMap<String, Reward>>,
    /// When it was loaded, in seconds since 1970.
    pub(crate) created: u64,
}

impl Models {
    /// A policy under this name.
    pub fn new(name: impl Into<String>, policy: impl Into<Policy>) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            name: name.into(),
            policy: policy.into(),
            rewards: Vec::new(),
            values: Vec::new(),
            combined: Mutex::default(),
            created: now.map_or(0, |now| now.as_secs()),
        }
    }

    /// Loads a policy, rewards and value heads; of each of those the name in requests and the reference.
    ///
    /// # Errors
    /// As [`Registry::policy`], [`Registry::reward`] and [`Registry::value`]; a name is no good.
    pub fn load(
        registry: &Registry,
        spec: &PolicySpec,
        rewards: &[(String, String)],
        values: &[(String, String)],
    ) -> Result<Self> {
        // Clients do not see paths of this machine.
        let path = Path::new(&spec.name);
        let name = path.file_name().filter(|_| path.exists()).map(|name| name.to_string_lossy());
        let policy = registry.policy(spec)?;
        // Nor addresses of servers.
        let of_server = policy.server().map(|server| server.model().to_owned());
        let name = of_server.or(name.map(|name| name.into_owned())).unwrap_or_else(|| spec.name.clone());
        let mut models = Self::new(name, policy);
        for (name, reference) in rewards {
            let reward = registry.reward(reference, &models.policy, spec.dtype)?;
            models = models.with_reward(name, reward)?;
        }
        for (name, reference) in values {
            let value = Arc::new(registry.value(reference, &models.policy)?);
            models = models.with_value(name, value)?;
        }
        Ok(models)
    }

    /// Adds a reward.
    ///
    /// # Errors
    /// The name is taken, or it could not be part of an expression.
    pub fn with_reward(mut self, name: &str, reward: Reward) -> Result<Self> {
        check_name("reward", name, self.rewards.iter().map(|(known, _)| known.as_str()))?;
        self.rewards.push((name.to_owned(), reward));
        Ok(self)
    }

    /// Adds a value head.
    ///
    /// # Errors
    /// As [`Models::with_reward`].
    pub fn with_value(mut self, name: &str, value: Arc<ValueHead>) -> Result<Self> {
        check_name("value head", name, self.values.iter().map(|(known, _)| known.as_str()))?;
        self.values.push((name.to_owned(), value));
        Ok(self)
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The names of the rewards.
    pub fn rewards(&self) -> impl Iterator<Item = &str> {
        self.rewards.iter().map(|(name, _)| name.as_str())
    }

    /// The names of the value heads.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|(name, _)| name.as_str())
    }

    /// Checks that guidance has what its method needs.
    pub(crate) fn check(&self, guidance: &GuidanceSpec) -> std::result::Result<(), ApiError> {
        let (rewards, values): (Vec<_>, Vec<_>) = (self.rewards().collect(), self.values().collect());
        Ok(guidance.check(&rewards, &values)?)
    }

    /// The reward with this name, or the combination of several that this expression is.
    pub(crate) fn reward(&self, field: &str, expression: &str) -> std::result::Result<Reward, ApiError> {
        if let Some((_, reward)) = self.rewards.iter().find(|(name, _)| name == expression) {
            return Ok(reward.clone());
        }
        if expression.len() > EXPRESSION {
            let message = format!("{field} is too long: at most {EXPRESSION} bytes");
            return Err(ApiError::invalid(field, message));
        }
        let combination: Combination = expression
            .parse()
            .map_err(|error: String| ApiError::invalid(field, format!("{field}: {error}")))?;
        let mut rewards = Vec::with_capacity(combination.names().len());
        for part in combination.names() {
            let Some((_, reward)) = self.rewards.iter().find(|(name, _)| name == part) else {
                let known = known(self.rewards());
                return Err(ApiError::invalid(
                    field,
                    format!("{field}: unknown reward {part:?}; {known}"),
                ));
            };
            rewards.push(reward.clone());
        }
        let canonical = combination.to_string();
        let mut kept = self.combined.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT && !kept.contains_key(&canonical) {
            kept.clear();
        }
        let new = || Reward::Combined(Arc::new(Combined::new(combination, rewards)));
        Ok(kept.entry(canonical).or_insert_with(new).clone())
    }

    /// The value head with this name.
    pub(crate) fn value(&self, name: &str) -> std::result::Result<Arc<ValueHead>, ApiError> {
        let found = self.values.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let known = known(self.values());
            ApiError::invalid(
                "guidance.value",
                format!("guidance.value: unknown value head {name:?}; {known}"),
            )
        })
    }
}

/// A name that can be part of an expression, and is not taken.
fn check_name<'a>(what: &str, name: &str, mut taken: impl Iterator<Item = &'a str>) -> Result<()> {
    if !is_plain(name) {
        let must = "letters, digits, '-', '_' and '.', and is no number";
        return Err(Error::Setting(format!("the {what} {name:?}: a name has {must}: write NAME=REF")));
    }
    if taken.any(|known| known == name) {
        return Err(Error::Setting(format!("the {what} {name:?} is given twice")));
    }
    Ok(())
}
