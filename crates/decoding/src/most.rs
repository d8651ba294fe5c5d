//! The largest counts that settings may have. They are checked before anything is allocated.

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Sequences decoded in parallel.
pub const BATCH_SIZE: usize = 4096;
/// Candidates per step.
pub const CANDIDATES: usize = 4096;
/// Beams.
pub const BEAMS: usize = 1024;
/// Samples per prompt.
pub const SAMPLES: usize = 100_000;
/// New tokens of an answer.
pub const NEW_TOKENS: usize = 1_000_000;
/// Tokens of a segment.
pub const SCORE_EVERY: usize = 4096;

/// Checks the counts of these settings.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    let counts = [
        ("candidates", settings.candidates, CANDIDATES),
        ("beams", settings.beams, BEAMS),
        ("samples", settings.samples, SAMPLES),
        ("max-new-tokens", settings.max_new_tokens, NEW_TOKENS),
        ("score-every", settings.score_every, SCORE_EVERY),
    ];
    match counts.into_iter().find(|(_, value, most)| value > most) {
        Some((name, value, most)) => Err(Error::TooLarge { name, value, most }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_limit() {
        let said = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check(usize::MAX).map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(said(|s| s.candidates = 4097), "candidates is 4097: it must be at most 4096");
        assert_eq!(said(|s| s.beams = 1025), "beams is 1025: it must be at most 1024");
        assert_eq!(said(|s| s.samples = 100_001), "samples is 100001: it must be at most 100000");
        assert_eq!(
            said(|s| s.max_new_tokens = usize::MAX),
            format!("max-new-tokens is {}: it must be at most 1000000", usize::MAX)
        );
        assert_eq!(said(|s| s.score_every = 4097), "score-every is 4097: it must be at most 4096");
        assert_eq!(said(|s| s.samples = SAMPLES), "");
        assert_eq!(said(|s| s.max_new_tokens = NEW_TOKENS), "");
    }
}
