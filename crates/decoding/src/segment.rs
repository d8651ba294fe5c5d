//! Looking further ahead: a reward asked once for several tokens.
//!
//! ```text
//! candidates ──► each carried on by the base policy ──► rewards of the ends ──► shaped, fused ──► one whole segment
//! ```
//!
//! The choice is among the candidates, as ever; what follows them is the base policy's own. The candidates of all
//! texts under way share each forward, and what was read of the chosen ones is kept.

use stackelberg_engine::model::Segment;
use stackelberg_engine::reward::{Question, RewardState, ask};
use stackelberg_engine::{Branches, Error as EngineError, Model, Tensor};

use crate::error::Result;
use crate::perturbation::Perturbation;
use crate::settings::Settings;
use crate::step::Step;
use crate::text::Text;
use crate::turn::{Turn, expect, keep, read};

/// Adds a segment of [`Settings::score_every`] tokens to every text, or what is left of its answer. Like
/// [`turn::advance`](crate::turn::advance) otherwise.
pub(crate) fn advance(
    model: &Model,
    texts: &mut [Text<'_>],
    settings: &Settings,
    read_last: bool,
    said: &mut dyn FnMut(&Text<'_>, &Step, &str),
) -> Result<()> {
    let turns = expect(model, texts.iter(), settings)?;
    let mut courses = Vec::with_capacity(texts.len());
    for (text, turn) in texts.iter_mut().zip(turns) {
        courses.push(Course::begin(turn, text, settings).map_err(|error| error.of(text.id))?);
    }
    for _ in 1..settings.score_every {
        if !carry_on(model, &mut courses, settings)? {
            break;
        }
    }
    score(model, texts, &mut courses, settings.perturbation)?;
    let mut unread = Vec::new();
    for (text, course) in texts.iter_mut().zip(courses) {
        let (ahead, token) = course.choose(text, settings, said).map_err(|error| error.of(text.id))?;
        // A token that ended the answer without being part of it is never read.
        let is_last = text.answer.tokens.len() == text.steps;
        if text.answer.finish.is_none() || read_last && is_last {
            match ahead {
                Some(ahead) => keep(text, &ahead, 0)?,
                None => unread.push((text, token)),
            }
        }
    }
    read(model, &mut unread)
}

/// Adds a token to each path that has not come to the answer's end; whether there is one.
fn carry_on(model: &Model, courses: &mut [Course<'_>], settings: &Settings) -> Result<bool> {
    let paths = courses.iter_mut().flat_map(|course| &mut course.paths);
    let mut paths: Vec<_> = paths.filter(|path| path.text.answer.finish.is_none()).collect();
    if paths.is_empty() {
        return Ok(false);
    }
    let unread = paths.iter_mut().map(|path| {
        let token = path.last();
        (&mut path.text, token)
    });
    read(model, &mut unread.collect::<Vec<_>>())?;
    let turns = expect(model, paths.iter().map(|path| &path.text), settings)?;
    for (path, turn) in paths.into_iter().zip(turns) {
        let id = path.text.id;
        let (step, _) = turn.choose(&mut path.text, settings).map_err(|error| error.of(id))?;
        path.take(step).map_err(|error| error.of(id))?;
    }
    Ok(true)
}

/// Asks for the rewards of the texts at the paths' ends, for all texts together.
fn score(
    model: &Model,
    texts: &mut [Text<'_>],
    courses: &mut [Course<'_>],
    perturbation: Perturbation,
) -> Result<()> {
    let mut asking: Vec<_> =
        texts.iter_mut().zip(courses).filter(|(_, course)| course.turn.is_some()).collect();
    // All guides of a run are of one kind.
    if asking.iter().any(|(text, _)| text.guide.as_ref().is_some_and(RewardState::needs_policy)) {
        look_at_ends(model, asking.iter_mut().flat_map(|(_, course)| &mut course.paths).collect())?;
    }
    let further: Vec<_> = asking.iter().map(|(_, course)| course.continuations()).collect();
    let ends = asking.iter().map(|(_, course)| course.ends()).collect::<Result<Vec<_>>>()?;
    let mut questions = Vec::with_capacity(asking.len());
    for (((text, course), further), ends) in asking.iter_mut().zip(&further).zip(&ends) {
        if let (Some(guide), Some(turn)) = (&mut text.guide, &course.turn) {
            let (candidates, ahead) = (&turn.candidates[..], ends.as_ref());
            questions.push(Question { guide, candidates, further, ahead });
        }
    }
    let rewards = ask(&mut questions)?;
    for ((text, course), mut rewards) in asking.into_iter().zip(rewards) {
        perturbation.perturb(&mut rewards, &mut text.perturbation);
        if let Some(turn) = &mut course.turn {
            turn.rewards = Some(rewards);
            turn.parts = text.guide.as_ref().map_or_else(Vec::new, |guide| guide.parts().to_vec());
        }
    }
    Ok(())
}

/// The policy reads the paths' last tokens, which are not part of their prefixes yet.
fn look_at_ends(model: &Model, mut paths: Vec<&mut Path<'_>>) -> Result<()> {
    let last: Vec<u32> = paths.iter().map(|path| path.last()).collect();
    let segments = paths.iter().zip(&last);
    let segments =
        segments.map(|(path, last)| Segment::Branch(&path.text.prefix, std::slice::from_ref(last)));
    let seen = model.forward(&mut segments.collect::<Vec<_>>())?;
    paths.iter_mut().zip(seen).for_each(|(path, branches)| path.ahead = Some(branches));
    Ok(())
}

/// A text's next segment in the making.
struct Course<'a> {
    /// The choice that begins it; `None` where it is the base policy's, and there is one path.
    turn: Option<Turn>,
    /// One for each candidate.
    paths: Vec<Path<'a>>,
}

impl<'a> Course<'a> {
    fn begin(turn: Turn, text: &mut Text<'a>, settings: &Settings) -> Result<Self> {
        if !turn.asks {
            let (step, _) = turn.choose(text, settings)?;
            let path = Path::begin(text.unguided(text.randomness.clone()), step)?;
            return Ok(Self { turn: None, paths: vec![path] });
        }
        let mut paths = Vec::with_capacity(turn.candidates.len());
        for &candidate in &turn.candidates {
            let randomness = text.randomness.fork();
            paths.push(Path::begin(text.unguided(randomness), turn.step(candidate))?);
        }
        Ok(Self { turn: Some(turn), paths })
    }

    /// What each candidate was carried on by.
    fn continuations(&self) -> Vec<Vec<u32>> {
        self.paths.iter().map(|path| path.tokens[1..].to_vec()).collect()
    }

    /// The policy's hidden states at the paths' ends, `[k, d]`, where they were looked at.
    fn ends(&self) -> Result<Option<Tensor>> {
        let ends = self.paths.iter().map(|path| Some(&path.ahead.as_ref()?.hidden));
        let ends: Option<Vec<&Tensor>> = ends.collect();
        Ok(ends.map(|ends| Tensor::cat(&ends, 0)).transpose().map_err(EngineError::from)?)
    }

    /// Makes one path part of the text, and says so token by token. Gives the policy's look at its last token,
    /// which is not read yet, if there was one; and that token.
    fn choose(
        mut self,
        text: &mut Text<'a>,
        settings: &Settings,
        said: &mut dyn FnMut(&Text<'_>, &Step, &str),
    ) -> Result<(Option<Branches>, u32)> {
        let continuations = self.continuations();
        let (first, index) = match self.turn {
            Some(turn) => {
                let (step, seen) = turn.choose(text, settings)?;
                (Some(Step { continuations, ..step }), seen.index())
            }
            None => (None, None),
        };
        let mut path = self.paths.swap_remove(index.unwrap_or(0));
        path.steps.splice(..usize::from(first.is_some()), first);
        let score = path.steps[0].score(index, settings.perturbation);
        let mut left = path.steps.len();
        for step in &path.steps {
            left -= 1;
            // The reward is that of the text at its end.
            let new = text.take(step, score.clone().filter(|_| left == 0))?;
            said(text, step, &new);
        }
        if let Some(guide) = &mut text.guide {
            match index {
                Some(index) => guide.commit(index)?,
                None => path.tokens.iter().try_for_each(|&token| guide.read(token))?,
            }
        }
        let token = path.last();
        // What is drawn from now on follows from what was drawn on this path.
        (text.prefix, text.hidden) = (path.text.prefix, path.text.hidden);
        text.randomness = path.text.randomness;
        Ok((path.ahead, token))
    }
}

/// One way that a text may go on.
struct Path<'a> {
    /// The text on this way. All but its last token is read.
    text: Text<'a>,
    /// What was decided on the way, and the tokens, one at least.
    steps: Vec<Step>,
    tokens: Vec<u32>,
    /// The policy's look at the last token, where the guide needs it.
    ahead: Option<Branches>,
}

impl<'a> Path<'a> {
    fn begin(text: Text<'a>, first: Step) -> Result<Self> {
        let mut path = Self { text, steps: Vec::new(), tokens: Vec::new(), ahead: None };
        path.take(first)?;
        Ok(path)
    }

    fn take(&mut self, step: Step) -> Result<()> {
        self.text.take(&step, None)?;
        self.tokens.push(step.chosen);
        self.steps.push(step);
        Ok(())
    }

    fn last(&self) -> u32 {
        self.tokens[self.tokens.len() - 1]
    }
}
