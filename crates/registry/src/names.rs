//! The parts of a reward's name: `FORMAT:REFERENCE#LABEL`, and combinations of several.

use std::path::Path;

use stackelberg_engine::reward::{Combination, RewardFormat};

use crate::builtin::Builtin;
use crate::error::{Error, Result};

/// Splits `FORMAT:NAME`. For example, `answer:NAME` is the reward NAME that reads the answer only. The text format is part
/// of the name, so that it is the same wherever the reward is used.
pub fn split_format(name: &str) -> (Option<RewardFormat>, &str) {
    match name.split_once(':').map(|(format, rest)| (format.parse(), rest)) {
        Some((Ok(format), rest)) => (Some(format), rest),
        _ => (None, name),
    }
}

/// Splits `REFERENCE#LABEL`.
pub fn split_label(name: &str) -> (&str, Option<&str>) {
    name.split_once('#').map_or((name, None), |(name, label)| (name, Some(label)))
}

/// Parses a name into its rewards. The name of an existing file is a single reward, even if it has operators in it.
///
/// # Errors
/// The expression is malformed.
pub fn combination(name: &str) -> Result<Combination> {
    let bare = split_format(name).1;
    let parsed: std::result::Result<Combination, String> = name.parse();
    let several = parsed.as_ref().is_ok_and(|combination| combination.only().is_none());
    let is_file = Path::new(bare).exists() || !several && Path::new(split_label(bare).0).exists();
    if is_file { Ok(Combination::one(name)) } else { parsed.map_err(Error::Name) }
}

/// Whether a name is neither a built-in reward nor a reference.
pub(crate) fn is_unknown(name: &str) -> bool {
    let name = split_label(name).0;
    Builtin::find(name).is_none() && !Path::new(name).exists() && !name.contains([':', '/', '.'])
}

/// The held-out rewards that share a part with the guide: each one's name as given, and the shared part.
///
/// # Errors
/// A name is malformed.
pub fn shared<'n>(guide: &str, held_out: &'n [String]) -> Result<Vec<(&'n str, String)>> {
    let guides = combination(guide)?;
    let mut shared = Vec::new();
    for name in held_out {
        let judges = combination(name)?;
        let also_guides =
            |part: &&String| guides.names().iter().any(|g| split_format(g).1 == split_format(part).1);
        shared.extend(judges.names().iter().find(also_guides).map(|part| (name.as_str(), part.clone())));
    }
    Ok(shared)
}
