//! The steps of a sequence, of which several sequences may share the first ones.

use std::sync::Arc;

use crate::sequence::Said;

/// Steps that were decided, in order. A clone shares the memory of its steps.
#[derive(Clone, Default)]
pub(crate) struct History(Option<Arc<Taken>>);

struct Taken {
    said: Said,
    before: History,
}

impl History {
    /// Adds a step.
    pub(crate) fn push(&mut self, said: Said) {
        *self = Self(Some(Arc::new(Taken { said, before: std::mem::take(self) })));
    }

    /// All steps.
    pub(crate) fn said(&self) -> Vec<Said> {
        let mut said = Vec::new();
        let mut last = self;
        while let Some(taken) = &last.0 {
            said.push(taken.said.clone());
            last = &taken.before;
        }
        said.reverse();
        said
    }
}

/// A long history is dropped step by step: not by a recursion, which could exhaust the stack.
impl Drop for History {
    fn drop(&mut self) {
        let mut last = self.0.take();
        while let Some(mut taken) = last.and_then(Arc::into_inner) {
            last = taken.before.0.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Step;

    #[test]
    fn histories_share_their_beginning_and_may_be_long() {
        let step = |text: usize| (Step::unguided(vec![0], vec![0.0], 0, -1.0), text.to_string());
        let mut one = History::default();
        for text in 0..3 {
            one.push(step(text));
        }
        let mut other = one.clone();
        one.push(step(3));
        other.push(step(4));
        let texts =
            |history: &History| history.said().into_iter().map(|(_, text)| text).collect::<String>();
        assert_eq!((texts(&one).as_str(), texts(&other).as_str()), ("0123", "0124"));
        for text in 0..200_000 {
            one.push(step(text));
        }
        drop(one);
        assert_eq!(texts(&other), "0124");
    }
}
