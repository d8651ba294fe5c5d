//! Error messages about unknown names.

/// `unknown KIND 'NAME': known are A, B and C`.
pub(crate) fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let known = match known {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.join(", "),
    };
    format!("unknown {kind} '{name}': known are {known}")
}
