//! Heads on a policy's hidden states: value heads, and whether a head is for the states that a server gives.

use stackelberg_decoding::policy::StateServer;
use stackelberg_decoding::{Policy, RemotePolicy};
use stackelberg_engine::reward::ValueHead;

use crate::error::{Error, Result};
use crate::registry::Registry;

/// The server of a policy's hidden states.
///
/// # Errors
/// There is none; the error names the head that reads them.
pub(crate) fn states_of<'p>(name: &str, policy: &'p RemotePolicy) -> Result<&'p dyn StateServer> {
    policy.states.as_deref().ok_or_else(|| {
        Error::Name(format!(
            "{name} reads the policy's hidden states, which a policy on a server does not give: name a server that gives \
             them with --states, or use a reward that reads text (a classifier or reward model, a program, a server, or a \
             head on an embedder such as harmless-minilm)"
        ))
    })
}

impl Registry {
    /// Loads a value head for a policy.
    ///
    /// # Errors
    /// The value head cannot be fetched or loaded, or was trained on another model.
    pub fn value(&self, name: &str, policy: impl Into<Policy>) -> Result<ValueHead> {
        let head = ValueHead::load(&self.fetch(name)?)?;
        match policy.into() {
            Policy::Local(policy) => head.fits(&policy)?,
            Policy::Remote(policy) => {
                let states = states_of(name, &policy)?;
                self.fits_states(name, (head.width(), head.base.as_deref()), states, &policy)?;
            }
        }
        Ok(head)
    }

    /// Checks that a head of this width, trained on the model `base` if that is known, fits the hidden states of a policy on a
    /// server. Of weights in files, only the width can be checked: there is a warning.
    ///
    /// # Errors
    /// The head is for other states.
    pub(crate) fn fits_states(
        &self,
        name: &str,
        (width, base): (usize, Option<&str>),
        states: &dyn StateServer,
        policy: &RemotePolicy,
    ) -> Result<()> {
        let found = states.width();
        if width != found {
            return Err(Error::Name(format!(
                "{name} reads hidden states of width {width}, the policy's have {found}"
            )));
        }
        let model = policy.server.model();
        match base {
            // Policies on servers are known by name: their version and context may change.
            Some(base) if base.contains(" on ") => match base.starts_with(&format!("{model} on ")) {
                true => Ok(()),
                false => Err(Error::Name(format!(
                    "{name} was trained on the model {base}, not on this policy ({model}): train one for it"
                ))),
            },
            Some(base) => {
                self.warn(&format!(
                    "{name} was trained on the weights {base:.12}: whether the server runs these cannot be checked"
                ));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
