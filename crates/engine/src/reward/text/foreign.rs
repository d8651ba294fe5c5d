//! Causal reward models with another tokenizer than the policy's.
//!
//! Whole texts are tokenised anew each time, so the tokens do not depend on how a text was generated. The common prefix
//! of the texts of one prompt is prefilled once and cached. Only the remaining tokens of each text are run, in shared
//! forward passes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use super::format::{Exchange, RewardFormat};
use super::scorer::TextScorer;
use crate::cache::Prefix;
use crate::chat::ChatTemplate;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::laid_out::LaidOut;
use crate::reward::causal::{RewardModel, score_row};
use crate::reward::project::project;
use crate::text_format::TextFormat;

/// A `*ForSequenceClassification` over a decoder with any tokenizer. Rewards are raw logits.
pub struct ForeignModel {
    checkpoint: Checkpoint,
    score: Vec<f32>,
    read: Mutex<Read>,
}

/// Common prefixes of the texts of a prompt, by the prompt's text, with the number of the call that used each last.
#[derive(Default)]
struct Read {
    calls: u64,
    prefixes: HashMap<String, (u64, Prefix)>,
}

/// The number of prompts whose prefixes are cached beside those of the current call.
const KEPT: usize = 64;

/// The texts of one prompt.
struct Group {
    prompt: String,
    /// Their places among the exchanges.
    places: Vec<usize>,
    /// Their tokens.
    texts: Vec<Vec<u32>>,
    /// What they share is in here.
    base: Prefix,
    shared: usize,
}

impl ForeignModel {
    /// A loaded classifier. The label is chosen as in [`Classifier::load`](super::Classifier::load).
    ///
    /// # Errors
    /// The model is not a classifier; it has several labels and none is chosen; there is no such label.
    pub fn new(checkpoint: Checkpoint, label: Option<&str>) -> Result<Self> {
        let score = score_row(&checkpoint, label)?;
        Ok(Self { checkpoint, score, read: Mutex::default() })
    }

    /// Turns a reward model with the policy's tokenizer into one that reads text.
    pub fn of(RewardModel { checkpoint, score }: RewardModel) -> Self {
        Self { checkpoint, score, read: Mutex::default() }
    }

    /// The prompt's text in this format, and the tokens of the whole text.
    fn tokens(&self, exchange: Exchange<'_>, format: RewardFormat) -> Result<(String, Vec<u32>)> {
        let Exchange { prompt, answer } = exchange;
        let before = match format {
            RewardFormat::Chat => self.checkpoint.lay_out(prompt, None, TextFormat::Chat)?,
            RewardFormat::Closed => {
                let whole = self.checkpoint.close(prompt, answer)?;
                let tokens = self.checkpoint.read(&whole)?;
                let before = prompt.raw(None);
                return self.fitting(before, tokens);
            }
            RewardFormat::Answer => LaidOut::as_is("", TextFormat::Raw),
            RewardFormat::Raw | RewardFormat::Hh | RewardFormat::Pair => {
                LaidOut::as_is(format.lay_out(Exchange { prompt, answer: "" }), TextFormat::Raw)
            }
        };
        let tokens = self.checkpoint.read(&self.checkpoint.answered(&before, answer))?;
        self.fitting(before.text().to_owned(), tokens)
    }

    /// The same, if the tokens fit the context.
    fn fitting(&self, before: String, tokens: Vec<u32>) -> Result<(String, Vec<u32>)> {
        let (read, context) = (tokens.len(), self.checkpoint.model.context());
        if read > context {
            let path = self.checkpoint.path.clone();
            return Err(Error::RewardContext { path, tokens: read, context });
        }
        if tokens.is_empty() { Err(Error::NoTokens) } else { Ok((before, tokens)) }
    }

    /// The texts by prompt, each prompt with the prefix that is cached for it.
    fn groups(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_prompt: HashMap<String, usize> = HashMap::new();
        for (place, exchange) in exchanges.iter().enumerate() {
            let (prompt, tokens) = self.tokens(*exchange, format)?;
            let number = *by_prompt.entry(prompt.clone()).or_insert_with(|| {
                let base = self.checkpoint.model.empty();
                groups.push(Group { prompt, places: Vec::new(), texts: Vec::new(), base, shared: 0 });
                groups.len() - 1
            });
            groups[number].places.push(place);
            groups[number].texts.push(tokens);
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for group in &mut groups {
            // At least one token of each text remains to be run for its last hidden state.
            let first = &group.texts[0];
            group.shared = group.texts.iter().skip(1).fold(first.len() - 1, |shared, text| {
                common(first, text).min(shared).min(text.len() - 1)
            });
            if let Some((_, base)) = read.prefixes.remove(&group.prompt) {
                group.base = base;
                group.base.truncate(common(group.base.tokens(), first).min(group.shared));
            }
        }
        Ok(groups)
    }

    /// Caches the prefixes of a call's prompts. The prompts that were not used for longest are dropped.
    fn keep(&self, groups: Vec<Group>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.calls += 1;
        let (now, room) = (read.calls, KEPT + groups.len());
        let prefixes = groups.into_iter().map(|group| (group.prompt, (now, group.base)));
        read.prefixes.extend(prefixes);
        while read.prefixes.len() > room {
            let oldest = read.prefixes.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(prompt, _)| prompt.clone()) else { return };
            read.prefixes.remove(&oldest);
        }
    }
}

impl TextScorer for ForeignModel {
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let model = &self.checkpoint.model;
        let mut groups = self.groups(exchanges, format)?;
        // First what the texts of each prompt share, then what is left of each text; all prompts together.
        let mut bases = Vec::with_capacity(groups.len());
        for Group { base, texts, shared, .. } in &mut groups {
            let read = base.len();
            if read < *shared {
                bases.push((base, &texts[0][read..*shared]));
            }
        }
        model.read_all(&mut bases)?;
        let mut prefixes = Vec::with_capacity(exchanges.len());
        for Group { base, texts, .. } in &groups {
            prefixes.extend(std::iter::repeat_n(base.clone(), texts.len()));
        }
        let tails = groups.iter().flat_map(|group| group.texts.iter().map(|text| &text[group.shared..]));
        let last = model.read_all(&mut prefixes.iter_mut().zip(tails).collect::<Vec<_>>())?;
        let found = project(&Tensor::cat(&last, 0)?, &self.score)?;
        let mut rewards = vec![f64::NAN; exchanges.len()];
        let places = groups.iter().flat_map(|group| &group.places);
        places.zip(found).for_each(|(&place, reward)| rewards[place] = reward);
        self.keep(groups);
        Ok(rewards)
    }

    fn template(&self) -> Option<&ChatTemplate> {
        self.checkpoint.template.as_ref()
    }

    fn formats(&self) -> &[RewardFormat] {
        use RewardFormat::{Answer, Chat, Closed, Hh, Raw};
        let chats = self.checkpoint.template.is_some();
        if chats { &[Raw, Hh, Chat, Closed, Answer] } else { &[Raw, Hh, Answer] }
    }

    /// A chat, if the model has a chat template.
    fn usual_format(&self) -> RewardFormat {
        if self.checkpoint.template.is_some() { RewardFormat::Chat } else { RewardFormat::Hh }
    }
}

/// The length of the common prefix of two texts.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
