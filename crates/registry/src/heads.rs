//! Heads on hidden states that a server gives, and the policies that they are for.

use stackelberg_decoding::RemotePolicy;

use crate::error::{Error, Result};
use crate::registry::Registry;

impl Registry {
    /// Checks that a head of this width, trained on the model `base` if that is known, fits the hidden states of a policy on a
    /// server. Of weights in files, only the width can be checked: there is a warning.
    ///
    /// # Errors
    /// Nothing gives hidden states, or the head is for other ones.
    pub(crate) fn fits_states(
        &self,
        name: &str,
        (width, base): (usize, Option<&str>),
        policy: &RemotePolicy,
    ) -> Result<()> {
        let Some(states) = &policy.states else {
            return Err(Error::Name(format!(
                "{name} reads the policy's hidden states, which a policy on a server does not give: name a server that gives \
                 them with --states, or use a reward that reads text (a classifier or reward model, a program, a server, or \
                 a head on an embedder such as harmless-minilm)"
            )));
        };
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
