//! Prefilled prompts, shared across requests.
//!
//! Full pages of keys and values are immutable. A later request with the same beginning starts with them and prefills its
//! own rest only; its answer is bit-identical to one without the cache. The pages that were not used for longest go first.

use std::collections::HashMap;

use stackelberg_engine::{Model, Prefix};

/// A cache of prefixes, each one page longer than the one before it.
#[derive(Default)]
pub(crate) struct Prefixes {
    /// Maximum size of all pages, in bytes.
    limit: usize,
    /// Each prefix of full pages by its tokens, with the time of its last use.
    pages: HashMap<Vec<u32>, (u64, Prefix)>,
    now: u64,
    pub(crate) counts: CacheCounts,
}

/// What the prefix cache has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Tokens of prompts that did not have to be prefilled.
    pub hits: usize,
    /// Tokens of prompts that were prefilled.
    pub misses: usize,
    /// Pages that were dropped.
    pub evicted: usize,
    /// Bytes of the pages that are cached.
    pub bytes: usize,
}

impl Prefixes {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The longest prefix that is cached of a prompt, shorter than the prompt; else an empty one.
    pub(crate) fn find(&mut self, model: &Model, prompt: &[u32]) -> Prefix {
        self.now += 1;
        let mut found = None;
        if let Some((tokens, _)) = model.page() {
            for end in (tokens..prompt.len()).step_by(tokens) {
                let Some((used, prefix)) = self.pages.get_mut(&prompt[..end]) else { break };
                *used = self.now;
                found = Some(prefix.clone());
            }
        }
        let found = found.unwrap_or_else(|| model.empty());
        self.counts.hits += found.len();
        self.counts.misses += prompt.len() - found.len();
        found
    }

    /// Whether a prompt should wait until another one, which is being prefilled, is cached: then it has more pages in common with
    /// it than are cached now.
    pub(crate) fn gains(&self, model: &Model, prompt: &[u32], other: &[u32]) -> bool {
        let Some((tokens, bytes)) = model.page() else { return false };
        let common = prompt.iter().zip(other).take_while(|(a, b)| a == b).count();
        // At least one token of a prompt is always run.
        let pages = common.min(prompt.len() - 1) / tokens;
        pages > 0 && pages * bytes <= self.limit && !self.pages.contains_key(&prompt[..pages * tokens])
    }

    /// Caches the full pages of a prefilled prompt.
    pub(crate) fn keep(&mut self, model: &Model, prefix: &Prefix) {
        let Some((tokens, bytes)) = model.page() else { return };
        for end in (tokens..=prefix.len()).step_by(tokens) {
            let key = &prefix.tokens()[..end];
            if self.counts.bytes + bytes > self.limit && !self.pages.contains_key(key) {
                // The longest prefixes of the oldest go first: they are used no more often than what they begin with.
                let oldest =
                    self.pages.iter().min_by_key(|(key, (used, _))| (*used, usize::MAX - key.len()));
                match oldest.filter(|(_, (used, _))| *used < self.now).map(|(key, _)| key.clone()) {
                    Some(oldest) => {
                        self.pages.remove(&oldest);
                        self.counts.bytes -= bytes;
                        self.counts.evicted += 1;
                    }
                    None => return,
                }
            }
            if self.counts.bytes + bytes <= self.limit && !self.pages.contains_key(key) {
                let mut page = prefix.clone();
                page.truncate(end);
                self.pages.insert(key.to_vec(), (self.now, page));
                self.counts.bytes += bytes;
            }
        }
    }
}
