//! Settings whose names in files have changed.

use serde_json::Value;

/// The first name of each, and its name now.
const RENAMED: [(&str, &str); 2] = [("stress", "perturbation"), ("min_entropy", "entropy_gate")];

/// Gives settings from older files the names that they have now.
pub(crate) fn to_current(settings: &mut Value) {
    rename(settings, RENAMED);
}

/// Gives settings their first names.
pub(crate) fn to_first(settings: &mut Value) {
    rename(settings, RENAMED.map(|(first, now)| (now, first)));
}

fn rename(settings: &mut Value, names: [(&str, &str); 2]) {
    let Some(settings) = settings.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(setting) = settings.remove(from) {
            settings.insert(to.to_owned(), setting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_renamed_both_ways() {
        let (first, now) = (json!({"stress": "none", "b": 1}), json!({"perturbation": "none", "b": 1}));
        let mut settings = first.clone();
        to_current(&mut settings);
        assert_eq!(settings, now);
        to_current(&mut settings);
        assert_eq!(settings, now);
        to_first(&mut settings);
        assert_eq!(settings, first);
    }
}
