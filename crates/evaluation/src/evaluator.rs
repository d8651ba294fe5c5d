//! Rewards and an embedder, loaded once, that measure answers.

use stackelberg_data::generations::Response;
use stackelberg_data::hash::Hash;
use stackelberg_decoding::Score;
use stackelberg_engine::reward::RewardFormat;
use stackelberg_engine::{Checkpoint, Dtype, Embedder};
use stackelberg_registry::{self as registry, Finished, Registry, Scorer};

use crate::error::{Error, Result};
use crate::metrics::{self, Coherence, Measured};
use crate::text::cut;

/// Rewards and an embedder that measure answers.
pub struct Evaluator {
    rewards: Vec<Scorer>,
    embedder: Option<Embedder>,
}

impl Evaluator {
    /// Loads rewards by name, and an embedder unless it is `None`. `policy` is called where a reward needs one.
    ///
    /// # Errors
    /// Something cannot be loaded; those of `policy`.
    pub fn load<'p>(
        registry: &Registry,
        rewards: &[String],
        embedder: Option<&str>,
        dtype: Dtype,
        policy: &mut dyn FnMut() -> registry::Result<&'p Checkpoint>,
    ) -> Result<Self> {
        let load = |name: &String| Scorer::load(registry, name, dtype, policy);
        let rewards = rewards.iter().map(load).collect::<registry::Result<_>>()?;
        let embedder = embedder.map(|name| registry.embedder(name)).transpose()?;
        Ok(Self { rewards, embedder })
    }

    /// A hash of all that measures: 12 hexadecimal digits.
    pub fn key(&self) -> String {
        let mut hash = Hash::new();
        for judge in &self.rewards {
            hash.update(format!("{}={}\n", judge.name, judge.hash));
        }
        hash.update(self.embedder.as_ref().map_or("", |embedder| &embedder.fingerprint));
        let mut key = hash.hex();
        key.truncate(12);
        key
    }

    /// Names and hashes of what measures.
    pub fn facts(&self) -> Vec<(String, String)> {
        let rewards =
            self.rewards.iter().map(|judge| (format!("reward {}", judge.name), judge.hash.clone()));
        let embedder = self.embedder.iter();
        rewards.chain(embedder.map(|e| ("embedder".to_owned(), e.fingerprint.clone()))).collect()
    }

    /// Measures answers. The reward named `recorded` is taken from an answer's own line, unless the answer was cut.
    ///
    /// # Errors
    /// A reward fails or is not finite for an answer, which the error names.
    pub fn measure(
        &self,
        policy: Option<&Checkpoint>,
        responses: &[Response],
        recorded: Option<&str>,
        coherence: Option<&mut Coherence<'_>>,
    ) -> Result<Vec<Measured>> {
        let mut measured = metrics::measure(responses, coherence)?;
        for scorer in &self.rewards {
            let known = |response: &Response| {
                let whole = cut(&response.text).len() == response.text.len();
                Some(response)
                    .filter(|_| whole && recorded == Some(&scorer.name))
                    .and_then(|r| score(r, scorer))
            };
            let known: Vec<Option<Score>> = responses.iter().map(known).collect();
            let asked = responses.iter().zip(&known).filter(|(_, known)| known.is_none());
            let read = |(response, _): (&Response, _)| {
                let ready = finished(response).and_then(|finished| scorer.read(policy, finished));
                ready.map_err(|source| Error::Answer { id: response.id.clone(), source: source.into() })
            };
            let ready = asked.map(read).collect::<Result<Vec<_>>>()?;
            let mut found = scorer.score(policy, &ready)?.into_iter();
            for (measured, known) in measured.iter_mut().zip(known) {
                let Score { reward, parts } = known.or_else(|| found.next()).unwrap_or(f64::NAN.into());
                if !reward.is_finite() {
                    return Err(Error::NotFinite {
                        reward: scorer.name.clone(),
                        id: measured.id.clone(),
                    });
                }
                measured.rewards.extend(scorer.parts().iter().cloned().zip(parts));
                measured.rewards.insert(scorer.name.clone(), reward);
            }
        }
        Ok(measured)
    }

    /// Warnings about the tokens of answers with their prompts, see [`Scorer::warnings`]. Each is given once, even if
    /// several rewards read the same tokens.
    ///
    /// # Errors
    /// As [`Evaluator::measure`].
    pub fn warnings(&self, policy: Option<&Checkpoint>, responses: &[&Response]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let Some(checkpoint) = policy else { return Ok(warnings) };
        for scorer in &self.rewards {
            let read = |response: &&Response| {
                let ready = finished(response).and_then(|finished| scorer.read(policy, finished));
                ready.map_err(|source| Error::Answer { id: response.id.clone(), source: source.into() })
            };
            let ready = responses.iter().map(read).collect::<Result<Vec<_>>>()?;
            for warning in scorer.warnings(checkpoint, &ready) {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        Ok(warnings)
    }

    /// Rewards that read another layout here than where they guided, see [`Scorer::seen_otherwise`].
    pub fn seen_otherwise(&self, guide: &str) -> Vec<(String, RewardFormat, RewardFormat)> {
        self.rewards.iter().flat_map(|scorer| scorer.seen_otherwise(guide)).collect()
    }

    /// The names of the rewards, each combination followed by its parts.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for scorer in &self.rewards {
            for name in std::iter::once(&scorer.name).chain(scorer.parts()) {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    }

    /// Measures coherence, if there is an embedder.
    pub fn coherence(&self) -> Option<Coherence<'_>> {
        self.embedder.as_ref().map(Coherence::new)
    }
}

/// The reward in a response's own line, if the line has all of it.
fn score(Response { record, .. }: &Response, scorer: &Scorer) -> Option<Score> {
    let parts = scorer.parts().iter().map(|name| record.rewards.get(name).copied());
    Some(Score { reward: record.reward?, parts: parts.collect::<Option<_>>()? })
}

/// A response as a reward reads it, laid out as its own line says.
fn finished(response: &Response) -> registry::Result<Finished<'_>> {
    let settings = response.record.settings.as_ref();
    let text = |field: &str| settings.and_then(|settings| settings[field].as_str());
    let format = text("prompt_format").map(str::parse).transpose().map_err(registry::Error::Text)?;
    let (prompt, system) = (Some(&response.prompt), text("system"));
    Ok(Finished { prompt, text: cut(&response.text), format, system })
}
