//! Blockwise decoding and particles: several texts under way together, scored at the ends of blocks.
//!
//! ```text
//! M texts ──N tokens each──► scores ──shaped──► weights ──┬── blockwise: one text is kept, and begins M again
//!                                                         └── particles: resampled where few have most of the weight
//! ```
//!
//! Best-of-n that drops samples ([`Settings::reject`]) is decoded here, too: no text begins again, and there are fewer from block
//! to block.
//!
//! A text that ends inside a block waits for the others. The last choice is among finished answers, and by their rewards:
//! where values of a value head were the scores, finished answers are scored anew, see [`choose`](crate::choice::choose).

use std::sync::Arc;

use stackelberg_engine::reward::RewardState;
use stackelberg_shaping::{Rule, argmax};

use crate::choice::{Response, Unscored, block, certain, kl_of_best_among};
use crate::error::{Error, Result};
use crate::history::History;
use crate::input::{Answers, Asked, Input};
use crate::line::{Line, Pending};
use crate::method::{Keep, Method};
use crate::next::Distribution;
use crate::policy::Drawn;
use crate::randomness::Randomness;
use crate::rejection::{Dropped, lowest, saved};
use crate::sample;
use crate::score::Score;
use crate::scorer::Scorer;
use crate::sequence::{Chosen, Said};
use crate::settings::Settings;
use crate::step::Block;
use crate::stopping::{Saved, first, further, kl_of_stopping};

/// The texts under way, and what chooses among them.
pub(crate) struct Blocks {
    tracks: Vec<Track>,
    /// Texts of earlier rounds of this block, which are scored and wait for the choice.
    scored: Vec<Track>,
    /// Samples that were dropped.
    dropped: Vec<Dropped>,
    /// The text at the beginning of the block, where further continuations may be drawn.
    origin: Option<Track>,
    /// What stopping early saved and lost, in units of the scores.
    pub(crate) saved: Saved,
    settings: Arc<Settings>,
    /// The settings by which scores are shaped: values of shaped rewards are not shaped again.
    shaping: Settings,
    scorer: Scorer,
    randomness: Randomness,
    perturbation: Randomness,
    /// Of particles: which text of the block before each one continues.
    parents: Option<Vec<usize>>,
    /// Bound on the KL of the choices so far, in nats. Particles have their own.
    kl: f64,
    /// Texts that were scored.
    pub(crate) calls: usize,
    /// The answers among which the last choice is made, once it is to be made.
    finalists: Option<Vec<Finalist>>,
}

/// One of the texts.
#[derive(Clone)]
struct Track {
    line: Line,
    /// Of a sample of best-of-n: its number among the samples.
    number: usize,
    /// Steps before this block that were not told.
    history: History,
    /// Steps of this block.
    block: Vec<Said>,
    /// Whether the state of what scores is asked about the block.
    asked: bool,
    /// Length of the answer when the block began, in tokens.
    start: usize,
    /// Score of the text when the block began, if it was scored.
    score: Option<Score>,
    /// Of a particle: `ln` of its weight without what its last shaped score contributes.
    log_rest: f64,
    /// Of a particle: strength times its last shaped score, in nats.
    exponent: f64,
    /// Of a particle: `ln(M W)` summed over the resamplings of its line, in nats.
    log_ratio: f64,
}

/// An answer that may be chosen.
pub(crate) struct Finalist {
    pub(crate) line: Line,
    pub(crate) said: Vec<Said>,
    /// Its reward, if it is known.
    pub(crate) known: Option<Score>,
    /// `ln` of its weight without what its reward will contribute.
    pub(crate) log_weight: f64,
    /// Bound on the KL of the choices that led to it, in nats.
    pub(crate) kl: f64,
}

impl Blocks {
    /// Begins with copies of a text. The random numbers choose among texts and decide those of the texts.
    pub(crate) fn new(
        line: Line,
        scorer: Scorer,
        (randomness, perturbation): (Randomness, Randomness),
    ) -> Self {
        let settings = line.sequence.settings.clone();
        let track = Track {
            line,
            number: 0,
            history: History::default(),
            block: Vec::new(),
            asked: false,
            start: 0,
            score: None,
            log_rest: 0.0,
            exponent: 0.0,
            log_ratio: 0.0,
        };
        let mut shaping = (*settings).clone();
        if !scorer.shapes() {
            shaping.shaping.rule = Rule::Raw;
        }
        let mut blocks = Self {
            tracks: vec![track],
            scored: Vec::new(),
            dropped: Vec::new(),
            origin: None,
            saved: Saved::default(),
            shaping,
            scorer,
            randomness,
            perturbation,
            parents: None,
            kl: 0.0,
            calls: 0,
            finalists: None,
            settings,
        };
        match blocks.settings.rejection() {
            Some(_) => blocks.begin_samples(),
            None => blocks.begin_block(0),
        }
        blocks
    }

    pub(crate) fn lines(&mut self) -> impl Iterator<Item = &mut Line> {
        self.tracks.iter_mut().map(|track| &mut track.line)
    }

    /// Takes in the distributions of the texts that wait for them. `read_last` as in [`Work`](crate::work::Work).
    pub(crate) fn expect(
        &mut self,
        rows: &mut dyn Iterator<Item = Distribution>,
        read_last: bool,
    ) -> Result<()> {
        for track in self.tracks.iter_mut().filter(|track| track.line.pending == Pending::Logits) {
            let Some(row) = rows.next() else { break };
            if let Some((Chosen { token, .. }, said)) = track.line.sequence.expect(row)? {
                track.block.push(said);
                track.line.read_next(token, read_last);
            }
        }
        Ok(())
    }

    /// Tokens that each text may get until the end of the block.
    pub(crate) fn left(&self) -> Vec<usize> {
        let left = |track: &Track| self.settings.block.saturating_sub(track.block.len());
        self.tracks.iter().map(left).collect()
    }

    /// Takes in what a server drew for a text.
    pub(crate) fn found(&mut self, index: usize, tokens: Vec<Drawn>, ended: bool) -> Result<()> {
        if let Some(track) = self.tracks.get_mut(index) {
            track.block.extend(track.line.draw(tokens, ended)?);
        }
        Ok(())
    }

    /// Whether all texts are at the end of the block, and wait to be scored.
    pub(crate) fn asks(&self) -> bool {
        let size = self.settings.block;
        self.finalists.is_none()
            && self.tracks.iter().all(|track| {
                let waits = matches!(track.line.pending, Pending::Logits | Pending::Nothing);
                waits && (track.is_finished() || track.block.len() >= size)
            })
    }

    /// What is to be scored: the tokens of this block, by the state of what scores; a text as a whole where nothing was
    /// written, or where a stop text that began in an earlier block was cut off.
    pub(crate) fn asked(&mut self) -> Asked {
        let prompt = self.scorer.request.prompt.len();
        let (mut asked, mut texts) = (Asked::default(), Vec::new());
        for track in &mut self.tracks {
            let grows = track.tokens().len() > track.start;
            let reads_last = track.reads_last(prompt);
            let askable = |state: &mut RewardState| grows && (reads_last || !state.needs_policy());
            let line = &mut track.line;
            let Some(state) = line.state.take_if(askable) else {
                if !track.is_scored() {
                    let last = reads_last.then(|| track.line.hidden.clone());
                    texts.push(Unscored { tokens: track.tokens().to_vec(), known: None, last });
                }
                continue;
            };
            track.asked = true;
            let new = &line.sequence.answer.tokens[track.start..];
            let ahead = state.needs_policy().then(|| line.hidden.clone());
            let (candidates, further) = (vec![new[0]], vec![new[1..].to_vec()]);
            asked.inputs.push(Input { state, candidates, further, ahead });
        }
        asked.texts = (!texts.is_empty()).then(|| (self.scorer.clone(), texts));
        asked
    }

    /// Takes in the scores, in the order of [`Blocks::asked`], and goes on. Returns the steps that are certain now.
    ///
    /// # Errors
    /// A score is not finite or cannot be shaped, or the tokenizer fails.
    pub(crate) fn score(&mut self, answers: Answers) -> Result<Vec<Said>> {
        let (mut answers, mut texts) = (answers.inputs.into_iter(), answers.texts.into_iter());
        let mut found: Vec<Score> = Vec::with_capacity(self.tracks.len());
        for track in &mut self.tracks {
            let score = match &track.score {
                _ if std::mem::take(&mut track.asked) => {
                    let Some((input, rewards)) = answers.next() else { return Ok(Vec::new()) };
                    let parts = input.state.parts().iter().map(|part| part[0]).collect();
                    let mut state: RewardState = input.state;
                    state.commit(0)?;
                    track.line.state = Some(state);
                    self.calls += 1;
                    Score { reward: rewards[0], parts }
                }
                Some(score) if track.is_scored() => score.clone(),
                _ => {
                    let Some(score) = texts.next() else { return Ok(Vec::new()) };
                    self.calls += 1;
                    score
                }
            };
            if !score.reward.is_finite() {
                let (step, token) = (track.tokens().len(), *track.tokens().last().unwrap_or(&0));
                return Err(Error::Reward { step, token, reward: score.reward });
            }
            found.push(score);
        }
        self.choose(found)
    }

    /// What follows from the scores.
    fn choose(&mut self, found: Vec<Score>) -> Result<Vec<Said>> {
        for (track, score) in self.tracks.iter_mut().zip(found) {
            track.score = Some(score);
        }
        self.scored.append(&mut self.tracks);
        let scores = self.scored.iter().flat_map(|track| &track.score);
        let mut seen: Vec<f64> = scores.map(|score| score.reward).collect();
        if self.draws_more(&seen) {
            return Ok(Vec::new());
        }
        self.tracks = std::mem::take(&mut self.scored);
        self.settings.perturbation.perturb(&mut seen, &mut self.perturbation);
        match self.settings.method {
            Method::Particles => self.weigh_particles(&seen),
            Method::BestOfN => Ok(self.reject(&seen)),
            _ => self.keep_one(&seen),
        }
    }

    /// Draws further continuations of the block, if they are expected to gain more than they cost.
    fn draws_more(&mut self, seen: &[f64]) -> bool {
        let Some(origin) = &self.origin else { return false };
        let tokens = self.scored.iter().map(|track| track.block.len()).sum::<usize>() as f64;
        let tokens = tokens / self.scored.len() as f64;
        let further = further(&self.settings, seen, tokens);
        if further == 0 {
            self.saved += Saved::new(&self.settings, seen, tokens);
        }
        self.tracks = (0..further).map(|_| copy(origin, &mut self.randomness)).collect();
        further > 0
    }

    /// Blockwise: one text is kept.
    fn keep_one(&mut self, seen: &[f64]) -> Result<Vec<Said>> {
        let texts = self.tracks.len();
        let (index, mut kl, weighed) = match self.settings.keep {
            Keep::Best => (argmax(seen).unwrap_or(0), kl_of_best_among(texts, &self.settings), None),
            Keep::Draw => {
                let weighed = self.weigh(seen)?;
                let index = sample::draw(&weighed.follower.policy, self.randomness.uniform());
                (index, weighed.follower.kl, Some(weighed))
            }
        };
        let weights = match &weighed {
            Some(weighed) => weighed.follower.policy.clone(),
            None => certain(index, texts),
        };
        self.record(weights, weighed.as_ref());
        if !self.tracks[index].is_finished() {
            self.kl += kl;
            let said = self.tracks[index].take_said();
            self.begin_block(index);
            return Ok(said);
        }
        // Values do not make the last choice: the rewards of all finished answers do.
        let chosen: Vec<usize> = match self.scorer.by_value() {
            true => (0..texts).filter(|&i| self.tracks[i].is_finished()).collect(),
            false => vec![index],
        };
        if chosen.len() > 1 {
            // A choice in two steps is no ranking: this bound holds of any choice among M.
            kl = kl_of_stopping(texts, self.settings.samples);
        }
        self.finish(&chosen, kl);
        Ok(Vec::new())
    }

    /// Best-of-n: those under way with the lowest rewards are dropped. When all are finished, the best is the answer.
    fn reject(&mut self, seen: &[f64]) -> Vec<Said> {
        let fraction = self.settings.rejection().unwrap_or(0.0);
        if self.tracks.iter().all(Track::is_finished) {
            self.keep_sample(seen);
            return Vec::new();
        }
        let finished = self.tracks.iter().map(Track::is_finished);
        let samples: Vec<(f64, bool)> = seen.iter().copied().zip(finished).collect();
        // From the last one, so that the indices of the others stay.
        for index in lowest(fraction, &samples).into_iter().rev() {
            let track = self.tracks.remove(index);
            let (number, tokens) = (track.number, track.tokens().to_vec());
            self.dropped.push(Dropped { number, tokens, score: track.score.unwrap_or_default() });
        }
        self.tracks.iter_mut().for_each(Track::next_block);
        Vec::new()
    }

    /// Of the finished samples, the best is the answer. Its first step gets the record of all.
    fn keep_sample(&mut self, seen: &[f64]) {
        let lengths = self.tracks.iter().map(|track| track.tokens().len());
        let finished: Vec<(usize, f64)> = lengths.zip(seen.iter().copied()).collect();
        let dropped: Vec<usize> = self.dropped.iter().map(|dropped| dropped.tokens.len()).collect();
        self.saved = saved(&finished, &dropped);
        let index = argmax(seen).unwrap_or(0);
        let mut all: Vec<(usize, Vec<u32>, f64)> =
            self.dropped.drain(..).map(|d| (d.number, d.tokens, d.score.reward)).collect();
        let kept = self.tracks.iter().zip(seen);
        all.extend(kept.map(|(track, reward)| (track.number, track.tokens().to_vec(), *reward)));
        all.sort_by_key(|(number, ..)| *number);
        let chosen = self.tracks[index].number;
        let weights = certain(chosen, all.len());
        let (texts, scores) = all.into_iter().map(|(_, tokens, reward)| (tokens, reward)).unzip();
        let block = Arc::new(block(texts, scores, weights, None));
        self.finish(&[index], 0.0);
        let chosen_of_all = self.finalists.iter_mut().flatten().flat_map(|last| last.said.first_mut());
        for (step, _) in chosen_of_all {
            (step.block, step.continuation) = (Some(block.clone()), Some(chosen));
        }
    }

    /// Particles: weights are multiplied by what the scores gained; where few particles have most of the weight, all are
    /// resampled.
    fn weigh_particles(&mut self, seen: &[f64]) -> Result<Vec<Said>> {
        let texts = self.tracks.len();
        let weighed = self.weigh(seen)?;
        let exponents: Vec<f64> =
            weighed.shaped.values.iter().map(|shaped| weighed.strength * shaped).collect();
        let logs: Vec<f64> = self
            .tracks
            .iter()
            .zip(&exponents)
            .map(|(track, exponent)| track.log_rest + exponent)
            .collect();
        let weights = sample::shares(&logs);
        self.record(weights.clone(), Some(&weighed));
        for (track, exponent) in self.tracks.iter_mut().zip(exponents) {
            track.exponent = exponent;
        }
        if self.tracks.iter().all(Track::is_finished) {
            self.finish(&(0..texts).collect::<Vec<_>>(), 0.0);
            return Ok(Vec::new());
        }
        self.parents = Some((0..texts).collect());
        let ess = 1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>();
        if 2.0 * ess >= texts as f64 {
            self.tracks.iter_mut().for_each(Track::next_block);
            return Ok(Vec::new());
        }
        for (track, weight) in self.tracks.iter_mut().zip(&weights) {
            track.log_ratio += (texts as f64 * weight).ln();
            // All weights are equal again.
            track.log_rest = -track.exponent;
        }
        let ancestors = systematic(&weights, self.randomness.uniform());
        self.restart(&ancestors, false);
        self.parents = Some(ancestors);
        Ok(Vec::new())
    }

    /// Shaped scores, and the follower that responds to them.
    fn weigh(&self, seen: &[f64]) -> Result<Response> {
        let step = self.tracks.iter().map(|track| track.tokens().len()).max().unwrap_or(0);
        Response::new(&self.shaping, seen).map_err(|source| Error::Shaping { step, source })
    }

    /// Notes at the first step of each text's block what came of the block.
    fn record(&mut self, weights: Vec<f64>, weighed: Option<&Response>) {
        let chosen = |track: &Track| track.block.iter().map(|(step, _)| step.chosen).collect();
        let continuations = self.tracks.iter().map(chosen).collect();
        let scores = self.tracks.iter().flat_map(|track| &track.score).map(|score| score.reward);
        let parents = self.parents.clone();
        let block = Block { parents, ..block(continuations, scores.collect(), weights, weighed) };
        let block = Arc::new(block);
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if let Some((step, _)) = track.block.first_mut() {
                (step.block, step.continuation) = (Some(block.clone()), Some(index));
            }
        }
    }

    /// The samples of best-of-n begin, with the random numbers that they have where none is dropped.
    fn begin_samples(&mut self) {
        let Some(first) = self.tracks.pop() else { return };
        let (seed, id) = (self.settings.seed, &self.scorer.request.id);
        let sample = |number: usize| {
            let mut track = Track { number, ..first.clone() };
            track.line.sequence.reseed(Randomness::new(seed, id, number as u64));
            track
        };
        self.tracks = (0..self.settings.samples).map(sample).collect();
    }

    /// A block begins, in which all texts continue this one.
    fn begin_block(&mut self, ancestor: usize) {
        let extends = self.settings.price_in_force().is_some();
        self.restart(&vec![ancestor; first(&self.settings)], extends);
    }

    /// Each text becomes a copy of one of them, with random numbers of its own. `extends`: they are copies of the same, and
    /// further ones may follow.
    fn restart(&mut self, ancestors: &[usize], extends: bool) {
        self.tracks.iter_mut().for_each(Track::next_block);
        self.origin = extends.then(|| self.tracks[ancestors[0]].clone());
        let copies =
            ancestors.iter().map(|&ancestor| copy(&self.tracks[ancestor], &mut self.randomness));
        self.tracks = copies.collect();
    }

    /// The last choice is to be made among these.
    fn finish(&mut self, chosen: &[usize], kl: f64) {
        let by_value = self.scorer.by_value();
        let kl = self.kl + kl;
        let tracks = std::mem::take(&mut self.tracks).into_iter().enumerate();
        let finalist = |(_, mut track): (usize, Track)| Finalist {
            said: track.take_said(),
            known: track.score.filter(|_| !by_value),
            log_weight: track.log_rest,
            kl: kl + track.log_ratio,
            line: track.line,
        };
        self.finalists = Some(tracks.filter(|(i, _)| chosen.contains(i)).map(finalist).collect());
    }

    /// Whether the last choice is to be made.
    pub(crate) fn is_finished(&self) -> bool {
        self.finalists.is_some()
    }

    /// The answers among which the last choice is made.
    pub(crate) fn finalists(&mut self) -> Vec<Finalist> {
        self.finalists.take().unwrap_or_default()
    }
}

impl Track {
    fn tokens(&self) -> &[u32] {
        &self.line.sequence.answer.tokens
    }

    fn is_finished(&self) -> bool {
        self.line.sequence.answer.finish.is_some()
    }

    /// Whether its score is that of an earlier block, after which nothing was written.
    fn is_scored(&self) -> bool {
        self.score.is_some() && self.tokens().len() == self.start
    }

    /// Whether the hidden state at hand is that of the answer's last token.
    fn reads_last(&self, prompt: usize) -> bool {
        self.line.prefix.len() == prompt + self.tokens().len()
    }

    /// The steps that were not told.
    fn take_said(&mut self) -> Vec<Said> {
        let mut said = std::mem::take(&mut self.history).said();
        said.append(&mut self.block);
        said
    }

    /// The next block begins.
    fn next_block(&mut self) {
        self.block.drain(..).for_each(|said| self.history.push(said));
        self.start = self.tokens().len();
        if self.line.pending == Pending::Remote {
            self.line.pending = match self.is_finished() {
                true => Pending::Nothing,
                false => Pending::Logits,
            };
        }
    }
}

/// A copy of a text, with random numbers of its own.
fn copy(track: &Track, randomness: &mut Randomness) -> Track {
    let mut track = track.clone();
    track.line.sequence.reseed(randomness.fork());
    track
}

/// Systematic resampling: an index for each of `n` places, index `i` about `n weights[i]` times. `uniform` in [0, 1).
fn systematic(weights: &[f64], uniform: f64) -> Vec<usize> {
    let n = weights.len();
    let (mut index, mut sum) = (0, weights[0]);
    let mut indices = Vec::with_capacity(n);
    for place in 0..n {
        let at = (place as f64 + uniform) / n as f64;
        while at >= sum && index + 1 < n {
            index += 1;
            sum += weights[index];
        }
        indices.push(index);
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systematic_resampling_is_in_proportion() {
        assert_eq!(systematic(&[0.25; 4], 0.5), [0, 1, 2, 3]);
        assert_eq!(systematic(&[0.0, 1.0, 0.0], 0.99), [1, 1, 1]);
        assert_eq!(systematic(&[0.5, 0.1, 0.4], 0.0), [0, 0, 2]);
        let weights = [0.07, 0.43, 0.2, 0.3];
        let mut counts = [0.0; 4];
        for i in 0..1000 {
            let drawn = systematic(&weights, f64::from(i) / 1000.0);
            for (weight, index) in weights.iter().zip(0..4) {
                let count = drawn.iter().filter(|&&i| i == index).count() as f64;
                assert!((count - 4.0 * weight).abs() < 1.0 + 1e-9);
                counts[index] += count / 4000.0;
            }
        }
        for (count, weight) in counts.iter().zip(weights) {
            assert!((count - weight).abs() < 1e-3, "{count} {weight}");
        }
    }
}
