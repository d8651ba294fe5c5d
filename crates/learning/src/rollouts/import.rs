//! Imports samples of other programs into a dataset: formats and tokenizes them, and computes their hidden states.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::json;
use stackelberg_data::hash::Hash;
use stackelberg_engine::reward::{PromptInput, TextFormat};
use stackelberg_engine::{Checkpoint, Prefix, Reward, Tensor};

use super::collect::{Progress, Prompt, broken_state};
use super::dataset::Dataset;
use super::hidden::Hidden;
use super::manifest::{Identity, Manifest, Prompts};
use super::part::Part;
use super::row::Row;
use super::samples::{Samples, Source};
use super::texts::{LayOut, Ready, Tokens, answers_turn, ready};
use crate::error::Error;

/// Formatted and tokenized samples, see [`Import::new`].
#[derive(Debug)]
pub struct Import {
    /// The prompts. Without a policy, their tokens are empty.
    pub prompts: Vec<Prompt>,
    /// The format of all prompts; `None` if they are not formatted.
    pub format: Option<TextFormat>,
    /// Number of responses without tokens, which were tokenized.
    pub tokenised: usize,
    /// Number of responses whose tokens were not of the policy's tokenizer, which were tokenized again.
    pub replaced: usize,
    /// The samples of each prompt.
    samples: Vec<Vec<Ready>>,
}

impl Import {
    /// Formats prompts and tokenizes all texts. Tokens of a file are used if the policy's tokenizer decodes them to
    /// the text; tokens after the end of the text and a final EOS are removed. Without a policy, prompts are
    /// unchanged and there are no tokens.
    ///
    /// # Errors
    /// A prompt cannot be formatted or has no tokens, a text does not fit into the context, or prompts have different
    /// formats. Errors name file and line.
    pub fn new(
        samples: &Samples,
        policy: Option<&Checkpoint>,
        lay_out: &LayOut<'_>,
    ) -> Result<Self, Error> {
        let turn = policy.and_then(answers_turn);
        let of = |source: &Source| ready(source, policy, lay_out, turn.as_deref());
        let laid: Vec<_> = samples.prompts.par_iter().map(of).collect();
        let count = samples.prompts.len();
        let mut import = Self {
            prompts: Vec::with_capacity(count),
            format: None,
            tokenised: 0,
            replaced: 0,
            samples: Vec::with_capacity(count),
        };
        for (laid, source) in laid.into_iter().zip(&samples.prompts) {
            let (prompt, format, answers) =
                laid.map_err(|(place, problem)| samples.wrong(place, problem))?;
            let name = |format: Option<TextFormat>| format.map_or("none", TextFormat::name);
            if let Some(first) = import.prompts.first().filter(|_| format != import.format) {
                let problem = format!(
                    "prompt '{}' has format {}, but '{}' has format {}: a dataset has one format; import them separately, or set the prompt format",
                    prompt.id,
                    name(format),
                    first.id,
                    name(import.format)
                );
                return Err(samples.wrong(source.place, problem));
            }
            import.format = format;
            let made = |how| answers.iter().filter(|(_, from)| *from == how).count();
            import.tokenised += made(Tokens::Made);
            import.replaced += made(Tokens::Replaced);
            import.prompts.push(prompt);
            import.samples.push(answers.into_iter().map(|(ready, _)| ready).collect());
        }
        Ok(import)
    }

    /// The manifest of a dataset of these samples. `hidden` is the width of the stored hidden states. The settings
    /// contain a hash of all samples without their rewards; the rewards are identified by `reward`.
    pub fn manifest(
        &self,
        model: Identity,
        reward: Option<Identity>,
        hidden: Option<usize>,
        prompts_per_shard: usize,
        system: Option<&str>,
    ) -> Manifest {
        let mut hash = Hash::new();
        for (prompt, samples) in self.prompts.iter().zip(&self.samples) {
            hash.update(json!([prompt.id, samples.len()]).to_string());
            for Ready { text, tokens, cut, .. } in samples {
                hash.update(json!([text, tokens, cut]).to_string());
            }
        }
        let longest = self.samples.iter().flatten().map(|sample| sample.tokens.len()).max();
        let settings = [
            ("imported", json!(true)),
            ("max_new_tokens", json!(longest.filter(|longest| *longest > 0))),
            ("prompt_format", json!(self.format.map(TextFormat::name))),
            ("samples_sha256", json!(hash.hex())),
            ("system", json!(system)),
        ];
        let mut counts = self.samples.iter().map(Vec::len);
        let first = counts.next();
        Manifest {
            format: Manifest::FORMAT.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model,
            reward,
            hidden,
            samples: first.filter(|first| counts.all(|count| count == *first)),
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            prompts_per_shard,
            prompts: Prompts::new(self.prompts.iter().map(|p| (p.id.as_str(), p.text.as_str()))),
        }
    }

    /// Writes the missing shards of the dataset.
    ///
    /// If the dataset has hidden states, or `reward` is a head, the policy computes each prompt once and each
    /// response after it, in batches of `at_once` responses. `at_once` does not change the output. Without `reward`,
    /// samples keep the rewards of their files, if the dataset has rewards. `policy` is required if anything is
    /// computed.
    ///
    /// # Errors
    /// An existing shard is corrupt, a hidden state or a reward is not finite, or a shard cannot be written.
    /// `Stopped` of the decoding crate if `progress` stopped the run.
    pub fn fill(
        &self,
        dataset: &Dataset,
        policy: Option<&Checkpoint>,
        reward: Option<&Reward>,
        at_once: usize,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        for shard in dataset.left(Part::ALL)? {
            let (rows, hidden) = self.shard(dataset, shard, policy, reward, at_once, progress)?;
            dataset.write(shard, &rows, &hidden)?;
        }
        Ok(())
    }

    /// The rows and hidden states of a shard.
    fn shard(
        &self,
        dataset: &Dataset,
        shard: usize,
        policy: Option<&Checkpoint>,
        reward: Option<&Reward>,
        at_once: usize,
        progress: &mut dyn Progress,
    ) -> Result<(Vec<Row>, Hidden), Error> {
        let manifest = dataset.manifest();
        let texts: Vec<(usize, usize)> = manifest
            .prompts_of(shard)
            .flat_map(|prompt| (0..self.samples[prompt].len()).map(move |sample| (prompt, sample)))
            .collect();
        let mut hidden = Hidden::new(manifest.hidden.unwrap_or(1));
        let mut rows = Vec::with_capacity(texts.len());
        let mut prefixes = BTreeMap::new();
        for texts in texts.chunks(at_once.max(1)) {
            if progress.stop() {
                return Err(stackelberg_decoding::Error::Stopped.into());
            }
            let reads = manifest.hidden.is_some() || matches!(reward, Some(Reward::Head(_)));
            let states = match policy.filter(|_| reads) {
                Some(policy) => self.read(policy, texts, &mut prefixes)?,
                None => vec![Vec::new(); texts.len()],
            };
            let scores = match (policy, reward) {
                (Some(policy), Some(Reward::Head(head))) => {
                    let width = policy.model.config().hidden;
                    let mut scores = Vec::with_capacity(texts.len());
                    for ((prompt, _), states) in texts.iter().zip(&states) {
                        let mut last = prefixes[prompt].1.clone();
                        if let Some(state) = states.rchunks_exact(width).next() {
                            let row = Tensor::from_slice(state, (1, width), last.device());
                            last = row.map_err(stackelberg_engine::Error::from)?;
                        }
                        scores.extend(head.score(&last)?);
                    }
                    Some(scores)
                }
                (Some(policy), Some(reward)) => Some(self.score(policy, reward, texts)?),
                _ => None,
            };
            for (i, (&(prompt, sample), states)) in texts.iter().zip(states).enumerate() {
                let (Prompt { id, text, .. }, ready) =
                    (&self.prompts[prompt], &self.samples[prompt][sample]);
                if manifest.hidden.is_some() && !hidden.push(&states) {
                    return Err(broken_state(dataset, sample, id));
                }
                let score = scores.as_ref().map_or(ready.reward, |scores| Some(scores[i]));
                if let Some(score) = score.filter(|score| !score.is_finite()) {
                    let file = dataset.folder().display().to_string();
                    let problem = format!(
                        "the reward of sample {sample} of prompt '{id}' is {score}: the reward model is numerically broken on this text"
                    );
                    return Err(Error::Dataset { file, problem });
                }
                ready.tokens.iter().for_each(|_| progress.token());
                rows.push(Row {
                    prompt_id: id.clone(),
                    sample: sample as u32,
                    prompt: text.clone(),
                    response: ready.text.clone(),
                    tokens: ready.tokens.clone(),
                    reward: score.filter(|_| manifest.reward.is_some()),
                    finish_reason: if ready.cut { "length" } else { "stop" }.to_owned(),
                    seed: 0,
                });
                if sample + 1 == self.samples[prompt].len() {
                    progress.prompt();
                }
            }
        }
        Ok((rows, hidden))
    }

    /// Hidden states of responses after the final norm, each `[tokens, d]`. `prefixes` is a cache of the prompts' KV
    /// prefixes with the hidden state `[1, d]` of the last token.
    fn read(
        &self,
        policy: &Checkpoint,
        texts: &[(usize, usize)],
        prefixes: &mut BTreeMap<usize, (Prefix, Tensor)>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let model = &policy.model;
        prefixes.retain(|prompt, _| texts.iter().any(|text| text.0 == *prompt));
        let mut unread: Vec<usize> = texts.iter().map(|text| text.0).collect();
        unread.dedup();
        unread.retain(|prompt| !prefixes.contains_key(prompt));
        let mut fresh = vec![model.empty(); unread.len()];
        let prompts = unread.iter().map(|prompt| &self.prompts[*prompt].tokens[..]);
        let last = model.read_all(&mut fresh.iter_mut().zip(prompts).collect::<Vec<_>>())?;
        prefixes.extend(unread.into_iter().zip(fresh.into_iter().zip(last)));

        let mut after: Vec<Prefix> = texts.iter().map(|text| prefixes[&text.0].0.clone()).collect();
        let (mut numbers, mut responses) = (Vec::new(), Vec::new());
        for (i, (prefix, &(prompt, sample))) in after.iter_mut().zip(texts).enumerate() {
            let tokens = &self.samples[prompt][sample].tokens[..];
            if !tokens.is_empty() {
                numbers.push(i);
                responses.push((prefix, tokens));
            }
        }
        let mut states = vec![Vec::new(); texts.len()];
        model.read_on(&mut responses, &mut |i, hidden| {
            states[numbers[i]].extend(hidden.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        })?;
        Ok(states)
    }

    /// Rewards of texts under a reward that does not read the policy's hidden states.
    fn score(
        &self,
        policy: &Checkpoint,
        reward: &Reward,
        texts: &[(usize, usize)],
    ) -> Result<Vec<f64>, Error> {
        let mut scores = Vec::with_capacity(texts.len());
        for texts in texts.chunk_by(|a, b| a.0 == b.0) {
            let answers: Vec<&[u32]> =
                texts.iter().map(|&(prompt, sample)| &self.samples[prompt][sample].tokens[..]).collect();
            let Prompt { tokens, asked, .. } = &self.prompts[texts[0].0];
            let asked = PromptInput { tokens, prompt: asked.as_ref() };
            scores.extend(reward.of_answers(policy, asked, &answers)?);
        }
        Ok(scores)
    }
}
