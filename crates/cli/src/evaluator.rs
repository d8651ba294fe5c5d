//! Rewards and an embedder, loaded once, that measure answers: what `evaluate` and `experiment` share.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use stackelberg_decoding::Score;
use stackelberg_engine::reward::RewardFormat;
use stackelberg_engine::{Checkpoint, Embedder};
use stackelberg_evaluation::metrics::{self, Coherence, Measured};
use stackelberg_evaluation::responses::Response;
use stackelberg_evaluation::text::cut;

use crate::model::{ModelArgs, embedder};
use crate::scorer::{Finished, Scorer};

/// What measures.
pub(crate) struct Evaluator {
    rewards: Vec<Scorer>,
    embedder: Option<Embedder>,
}

impl Evaluator {
    /// Loads rewards by name, and an embedder unless it is `None`. `policy` is asked for where a reward needs it.
    pub(crate) fn load<'p>(
        rewards: &[String],
        embeds_with: Option<&str>,
        model: &ModelArgs,
        policy: &mut dyn FnMut() -> Result<&'p Checkpoint>,
    ) -> Result<Self> {
        let load = |name: &String| Scorer::load(name, model, policy);
        let rewards = rewards.iter().map(load).collect::<Result<_>>()?;
        Ok(Self { rewards, embedder: embeds_with.map(embedder).transpose()? })
    }

    /// Tells what is measured from anything else that could be.
    pub(crate) fn key(&self) -> String {
        let mut hash = Sha256::new();
        for judge in &self.rewards {
            hash.update(format!("{}={}\n", judge.name, judge.hash));
        }
        hash.update(self.embedder.as_ref().map_or("", |embedder| &embedder.fingerprint));
        hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Names and hashes of what measures.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let rewards =
            self.rewards.iter().map(|judge| (format!("reward {}", judge.name), judge.hash.clone()));
        let embedder = self.embedder.iter();
        rewards.chain(embedder.map(|e| ("embedder".to_owned(), e.fingerprint.clone()))).collect()
    }

    /// Measures answers. A reward that a line was written under is taken from it if it is `recorded`, unless the
    /// answer was cut.
    pub(crate) fn measure(
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
                ready.with_context(|| format!("answer '{}'", response.id))
            };
            let ready = asked.map(read).collect::<Result<Vec<_>>>()?;
            let mut found = scorer.score(policy, &ready)?.into_iter();
            for (measured, known) in measured.iter_mut().zip(known) {
                let Score { reward, parts } = known.or_else(|| found.next()).unwrap_or(f64::NAN.into());
                if !reward.is_finite() {
                    bail!(
                        "the reward '{}' of answer '{}' is no number: it is broken for it",
                        scorer.name,
                        measured.id
                    );
                }
                measured.rewards.extend(scorer.parts().iter().cloned().zip(parts));
                measured.rewards.insert(scorer.name.clone(), reward);
            }
        }
        Ok(measured)
    }

    /// Rewards that see another layout than they saw when they guided, see [`Scorer::seen_otherwise`].
    pub(crate) fn seen_otherwise(&self, guide: &str) -> Vec<(String, RewardFormat, RewardFormat)> {
        self.rewards.iter().flat_map(|scorer| scorer.seen_otherwise(guide)).collect()
    }

    /// The names of the rewards, of one that is made of several with these behind it.
    pub(crate) fn names(&self) -> Vec<String> {
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

    /// What measures coherence, if anything does.
    pub(crate) fn coherence(&self) -> Option<Coherence<'_>> {
        self.embedder.as_ref().map(Coherence::new)
    }
}

/// What a response was worth when it was written, if its line says all of it.
fn score(Response { record, .. }: &Response, scorer: &Scorer) -> Option<Score> {
    let parts = scorer.parts().iter().map(|name| record.rewards.get(name).copied());
    Some(Score { reward: record.reward?, parts: parts.collect::<Option<_>>()? })
}

/// A response as a reward reads it: as its own line says that it was laid out.
fn finished(response: &Response) -> Result<Finished<'_>> {
    let settings = response.record.settings.as_ref();
    let text = |field: &str| settings.and_then(|settings| settings[field].as_str());
    let format = text("prompt_format").map(str::parse).transpose().map_err(anyhow::Error::msg)?;
    let (prompt, system) = (Some(&response.prompt), text("system"));
    Ok(Finished { prompt, text: cut(&response.text), format, system })
}
