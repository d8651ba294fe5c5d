//! The models of a policy: rewards and value heads by name, loaded when they are first named.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use stackelberg_data::hash::sha256;
use stackelberg_decoding::Policy;
use stackelberg_engine::reward::{Combined, ValueHead};
use stackelberg_engine::{Checkpoint, Error as EngineError, Reward};
use stackelberg_hub::Hub;
use stackelberg_learning::rollouts::Identity;
use stackelberg_registry::names::{combination, is_plain, shown};
use stackelberg_registry::{BUILTIN, PolicySpec, Registry};

use super::failure::Failure;

/// A policy, and rewards and value heads for it.
pub(crate) struct Models {
    pub(crate) registry: Registry,
    pub(crate) policy: Policy,
    /// What the policy was loaded as.
    pub(crate) spec: PolicySpec,
    /// The names that the user has given.
    names: [Vec<String>; 2],
    /// What rewards with these names are.
    references: HashMap<String, Is>,
    /// By name, reference or expression.
    rewards: Mutex<HashMap<String, Reward>>,
    values: Mutex<HashMap<String, Arc<ValueHead>>>,
}

/// A reward that a user names: a reference, or a function.
pub(crate) enum Named {
    Reference(String),
    Function(Reward),
}

/// What a reward of the user's is, for records.
enum Is {
    Reference(String),
    Function,
}

/// A registry with the settings of the environment variables.
pub(crate) fn registry() -> Registry {
    let hub = Hub::from_variables(|name| std::env::var_os(name));
    // A warning that Python turns into an error has nobody to be raised to here.
    let warn = |warning: &str| {
        let text = CString::new(warning).unwrap_or_default();
        Python::attach(|py| drop(PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)));
    };
    Registry::new(hub).with_keys(|name| std::env::var(name).ok()).with_warnings(warn)
}

impl Models {
    /// Loads a policy, and rewards and value heads under these names.
    ///
    /// # Errors
    /// One of them cannot be loaded, or a name cannot be part of an expression.
    pub(crate) fn load(
        spec: &PolicySpec,
        rewards: Vec<(String, Named)>,
        values: Vec<(String, String)>,
    ) -> Result<Self, Failure> {
        let names = |what, names: Vec<&String>| match names.iter().find(|name| !is_plain(name)) {
            None => Ok(names.into_iter().cloned().collect()),
            Some(name) => Err(Failure::Value(format!(
                "the {what} {name:?}: a name has letters, digits, '-', '_' and '.', and is no number"
            ))),
        };
        let of_rewards = names("reward", rewards.iter().map(|(name, _)| name).collect())?;
        let of_values = names("value head", values.iter().map(|(name, _)| name).collect())?;
        let registry = registry();
        let policy = registry.policy(spec)?;
        let (mut loaded, mut references) = (HashMap::new(), HashMap::new());
        for (name, reward) in rewards {
            let (reward, is) = match reward {
                Named::Function(reward) => (reward, Is::Function),
                Named::Reference(reference) => {
                    (registry.reward(&reference, &policy, spec.dtype)?, Is::Reference(reference))
                }
            };
            references.insert(name.clone(), is);
            loaded.insert(name, reward);
        }
        let mut heads = HashMap::new();
        for (name, reference) in values {
            heads.insert(name, Arc::new(registry.value(&reference, &policy)?));
        }
        Ok(Self {
            registry,
            policy,
            spec: spec.clone(),
            references,
            names: [of_rewards, of_values],
            rewards: Mutex::new(loaded),
            values: Mutex::new(heads),
        })
    }

    /// The names of rewards and of value heads that errors list.
    pub(crate) fn known(&self) -> [Vec<&str>; 2] {
        let builtin = BUILTIN.iter().map(|builtin| builtin.name);
        let [rewards, values] = &self.names;
        let own = rewards.iter().map(String::as_str);
        let others = builtin.filter(|name| !rewards.iter().any(|own| own == name));
        [own.chain(others).collect(), values.iter().map(String::as_str).collect()]
    }

    /// The reward with this name, or with this reference, or the combination of several that this expression is.
    ///
    /// # Errors
    /// It is unknown or malformed, or cannot be loaded.
    pub(crate) fn reward(&self, name: &str) -> Result<Reward, Failure> {
        let mut loaded = self.rewards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reward) = loaded.get(name) {
            return Ok(reward.clone());
        }
        let combination = combination(name)?;
        let mut parts = Vec::new();
        for part in combination.names() {
            let reward = match loaded.get(part) {
                Some(reward) => reward.clone(),
                None => self.registry.one_reward(part, &self.policy, self.spec.dtype)?,
            };
            loaded.insert(part.clone(), reward.clone());
            parts.push(reward);
        }
        let reward = match (combination.only(), parts.pop()) {
            (Some(_), Some(only)) => return Ok(only),
            (_, last) => {
                parts.extend(last);
                Reward::Combined(Arc::new(Combined::new(combination.renamed(shown), parts)))
            }
        };
        loaded.insert(name.to_owned(), reward.clone());
        Ok(reward)
    }

    /// How records identify the reward with this name: under its reference, with the hash that the command line writes.
    ///
    /// # Errors
    /// The reward cannot be read, or is a combination with a function.
    pub(crate) fn reward_identity(&self, name: &str) -> Result<Identity, Failure> {
        let combination = combination(name)?;
        let is_function = |name: &&String| matches!(self.references.get(*name), Some(Is::Function));
        match (combination.names().iter().find(is_function), combination.only()) {
            (Some(_), Some(only)) => return Ok(Self::function_identity(only)),
            (Some(function), None) => {
                let problem =
                    "is a function, of which records have no combination: score with a function alone";
                return Err(Failure::Value(format!("{name}: {function} {problem}")));
            }
            _ => {}
        }
        let reference = |name: &str| match self.references.get(name) {
            Some(Is::Reference(reference)) => reference.clone(),
            _ => name.to_owned(),
        };
        let name = match combination.only() {
            Some(only) => reference(only),
            None => combination.renamed(reference).to_string(),
        };
        Ok(Identity { name: shown(&name), hash: self.registry.reward_hash(&name)? })
    }

    /// How records identify a function. Its name is hashed, like that of a program, since what it does is not known.
    pub(crate) fn function_identity(name: &str) -> Identity {
        let name = format!("function:{name}");
        Identity { hash: sha256(&name), name }
    }

    /// The value head with this name or reference.
    ///
    /// # Errors
    /// It is unknown, or cannot be loaded.
    pub(crate) fn value(&self, name: &str) -> Result<Arc<ValueHead>, Failure> {
        let mut loaded = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = loaded.get(name) {
            return Ok(value.clone());
        }
        let value = Arc::new(self.registry.value(name, &self.policy)?);
        loaded.insert(name.to_owned(), value.clone());
        Ok(value)
    }

    /// The policy of models, or the default policy, which is loaded into `default` once.
    ///
    /// # Errors
    /// A server runs the policy, or the default policy cannot be loaded.
    pub(crate) fn local<'p>(
        models: Option<&'p Self>,
        registry: &Registry,
        spec: &PolicySpec,
        default: &'p OnceCell<Checkpoint>,
    ) -> stackelberg_registry::Result<&'p Checkpoint> {
        match (models, default.get()) {
            (Some(models), _) => models.policy.local().ok_or_else(|| EngineError::NoHiddenStates.into()),
            (None, Some(policy)) => Ok(policy),
            (None, None) => {
                let loaded = registry.checkpoint(spec)?;
                Ok(default.get_or_init(|| loaded))
            }
        }
    }

    /// The file or folder of the policy.
    pub(crate) fn path(&self) -> &Path {
        &self.policy.path
    }
}
