//! Rewards and an embedder, loaded once, that measure answers: what `evaluate` and `experiment` share.

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use stackelberg_engine::reward::{Exchange, TextFormat, TextReward};
use stackelberg_engine::{Checkpoint, Embedder, Reward};
use stackelberg_evaluation::metrics::{self, Coherence, Measured};
use stackelberg_evaluation::responses::Response;
use stackelberg_evaluation::text::cut;

use crate::model::{ModelArgs, embedder, reward_hash, scored_tokens, text_reward};

/// What measures.
pub(crate) struct Evaluator {
    rewards: Vec<Judge>,
    embedder: Option<Embedder>,
}

/// A reward, by whatever it reads.
struct Judge {
    name: String,
    hash: String,
    reads: Reads,
}

enum Reads {
    /// The hidden states of the policy, or a model with its tokenizer.
    Policy(Box<Reward>),
    /// Finished texts.
    Text(Box<TextReward>),
}

impl Evaluator {
    /// Loads rewards by name, and an embedder unless it is `None`. `policy` is asked for where a reward needs it.
    pub(crate) fn load<'p>(
        rewards: &[String],
        embeds_with: Option<&str>,
        model: &ModelArgs,
        policy: &mut dyn FnMut() -> Result<&'p Checkpoint>,
    ) -> Result<Self> {
        let mut judges = Vec::with_capacity(rewards.len());
        for name in rewards {
            let reads = match text_reward(name)? {
                Some(reward) => Reads::Text(Box::new(reward)),
                None => match model.reward(name, policy()?)? {
                    Reward::Text(reward) => Reads::Text(reward),
                    other => Reads::Policy(Box::new(other)),
                },
            };
            judges.push(Judge { name: name.clone(), hash: reward_hash(name)?, reads });
        }
        Ok(Self { rewards: judges, embedder: embeds_with.map(embedder).transpose()? })
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
        for judge in &self.rewards {
            let known = |response: &Response| {
                let whole = cut(&response.text).len() == response.text.len();
                response.record.reward.filter(|_| whole && recorded == Some(judge.name.as_str()))
            };
            let unknown: Vec<usize> =
                (0..responses.len()).filter(|&i| known(&responses[i]).is_none()).collect();
            let asked: Vec<&Response> = unknown.iter().map(|&i| &responses[i]).collect();
            let mut found = judge.score(policy, &asked)?.into_iter();
            for (measured, response) in measured.iter_mut().zip(responses) {
                let reward = known(response).or_else(|| found.next());
                if let Some(reward) = reward.filter(|reward| reward.is_finite()) {
                    measured.rewards.insert(judge.name.clone(), reward);
                } else {
                    let id = &response.id;
                    bail!(
                        "the reward '{}' of answer '{id}' is no number: it is broken for it",
                        judge.name
                    );
                }
            }
        }
        Ok(measured)
    }

    /// What measures coherence, if anything does.
    pub(crate) fn coherence(&self) -> Option<Coherence<'_>> {
        self.embedder.as_ref().map(Coherence::new)
    }
}

impl Judge {
    fn score(&self, policy: Option<&Checkpoint>, responses: &[&Response]) -> Result<Vec<f64>> {
        match (&self.reads, policy) {
            (Reads::Text(reward), _) => {
                let exchanges: Vec<Exchange<'_>> = responses
                    .iter()
                    .map(|response| Exchange { prompt: &response.prompt, answer: cut(&response.text) })
                    .collect();
                Ok(reward.score(&exchanges)?)
            }
            (Reads::Policy(reward), Some(policy)) => {
                let one = |response: &&Response| {
                    let tokens = tokens(response, policy, reward);
                    let tokens = tokens.with_context(|| format!("answer '{}'", response.id))?;
                    Ok(reward.of_tokens(policy, &tokens)?)
                };
                responses.par_iter().map(one).collect()
            }
            (Reads::Policy(_), None) => bail!("the reward '{}' needs a policy", self.name),
        }
    }
}

/// Prompt and answer as a reward on the policy reads them: as the answer's own line says they were laid out, else as the
/// reward was trained.
fn tokens(response: &Response, policy: &Checkpoint, reward: &Reward) -> Result<Vec<u32>> {
    let settings = response.record.settings.as_ref();
    let text = |field: &str| settings.and_then(|settings| settings[field].as_str());
    let format = text("prompt_format").map(str::parse::<TextFormat>).transpose();
    let format = format.map_err(anyhow::Error::msg)?.unwrap_or(reward.text_format(policy));
    let laid_out = policy.lay_out(&response.prompt, text("system"), format)? + cut(&response.text);
    scored_tokens(policy, &laid_out, format)
}
