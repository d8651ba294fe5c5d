//! The choice of the label of a classifier that is the reward.

/// One label, whose logit is the reward, or two labels, whose difference of logits is the reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    plus: usize,
    minus: Option<usize>,
}

impl Label {
    /// Finds the label of this name, or the two labels of `GOOD-BAD`. For a classifier with one label, the name can be
    /// left out.
    ///
    /// # Errors
    /// There is no such label, or there are several and none is chosen.
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
        // Names of labels may contain a '-' themselves.
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

    /// The reward, from the value of each label.
    pub(super) fn value(self, of: impl Fn(usize) -> f64) -> f64 {
        of(self.plus) - self.minus.map_or(0.0, of)
    }
}
