//! Which of a classifier's labels is the reward.

/// A label, whose logit is the reward; or two, whose difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    plus: usize,
    minus: Option<usize>,
}

impl Label {
    /// The label of this name, or `GOOD-BAD`; a classifier with one label needs none.
    pub(super) fn of(names: &[String], label: Option<&str>) -> Result<Self, String> {
        let find = |name: &str| names.iter().position(|known| known == name);
        let known = || names.join(", ");
        let Some(label) = label else {
            return match names.len() {
                1 => Ok(Self { plus: 0, minus: None }),
                _ => Err(format!(
                    "has the labels {}: choose one behind a '#', or two as GOOD-BAD",
                    known()
                )),
            };
        };
        // A name may have a '-' of its own.
        let two = || {
            let mut cuts = label.match_indices('-').map(|(at, _)| (&label[..at], &label[at + 1..]));
            cuts.find_map(|(plus, minus)| Some((find(plus)?, find(minus)?)))
        };
        match (find(label), two()) {
            (Some(plus), _) => Ok(Self { plus, minus: None }),
            (None, Some((plus, minus))) => Ok(Self { plus, minus: Some(minus) }),
            (None, None) => Err(format!("has no label '{label}': it has {}", known())),
        }
    }

    /// The reward, of what each label has.
    pub(super) fn value(self, of: impl Fn(usize) -> f64) -> f64 {
        of(self.plus) - self.minus.map_or(0.0, of)
    }
}
