//! What sequences ask a server that runs the policy, and what they make of its answers.

use std::iter::once;

use crate::error::{Error, Result};
use crate::line::{Line, Pending};
use crate::method::Method;
use crate::next::Distribution;
use crate::policy::{Call, Found, RemotePolicy, Wanted};
use crate::request::{Request, Want};
use crate::sample::penalises;
use crate::sequence::{Said, Sequence};
use crate::work::{Kind, Work, on_path};

impl Work {
    /// The lines that need something of the server, with their calls. They wait from now on. `most` is the most
    /// log-probabilities that the server gives.
    pub(crate) fn calls(&mut self, request: &Request, most: usize) -> Vec<(usize, Call)> {
        let left = self.left();
        let mut calls = Vec::new();
        for (number, (line, left)) in self.lines().into_iter().zip(left).enumerate() {
            if !needs_call(line, left) {
                continue;
            }
            line.pending = Pending::Policy;
            let tokens = [&request.prompt[..], &line.sequence.answer.tokens].concat();
            calls.push((
                number,
                Call { tokens, wanted: wanted(&mut line.sequence, left, request, most) },
            ));
        }
        calls
    }

    /// Tokens that each line may get until it waits for the others.
    fn left(&self) -> Vec<usize> {
        match &self.kind {
            Kind::One { paths, .. } if paths.is_empty() => vec![usize::MAX],
            Kind::One { paths, .. } => paths.iter().map(|path| path.sequence.segment_left()).collect(),
            Kind::Beams(_) => Vec::new(),
            Kind::Blocks(blocks) => blocks.left(),
        }
    }

    /// Whether it can only wait for what was asked off the loop.
    pub(crate) fn waits(&mut self) -> bool {
        let left = self.left();
        let asks = self.asks();
        let lines = self.lines();
        let outside = |line: &&mut Line| matches!(line.pending, Pending::Remote | Pending::Policy);
        let settled = |line: &Line, left: usize| match line.pending {
            Pending::Remote | Pending::Policy | Pending::Nothing => true,
            Pending::Logits => left == 0,
            _ => false,
        };
        let any = lines.iter().any(outside);
        any && !asks && lines.into_iter().zip(left).all(|(line, left)| settled(line, left))
    }

    /// Takes in what the server found for a line. Returns the steps that were decided.
    pub(crate) fn found(&mut self, line: usize, found: Found) -> Result<Vec<Said>> {
        match found {
            Found::Likeliest(likeliest) => {
                self.tokens_run += 1;
                self.lines().into_iter().for_each(|line| line.pending = Pending::Logits);
                self.expect(&mut once(Distribution::Likeliest(likeliest)))
            }
            Found::Continuation { tokens, ended } => {
                if tokens.is_empty() && !ended {
                    return Err(Error::Server("the server continued a text by no token".to_owned()));
                }
                self.tokens_run += tokens.len();
                match &mut self.kind {
                    Kind::One { line, paths } if paths.is_empty() => {
                        let said = line.draw(tokens, ended)?;
                        if let Some(state) = &mut line.state {
                            said.iter().try_for_each(|(step, _)| state.read(step.chosen))?;
                        }
                        Ok(said)
                    }
                    Kind::One { paths, .. } => {
                        if let Some(path) = paths.get_mut(line) {
                            path.draw(tokens, ended)?;
                            path.pending = on_path(&path.sequence);
                        }
                        Ok(Vec::new())
                    }
                    Kind::Blocks(blocks) => blocks.found(line, tokens, ended).map(|()| Vec::new()),
                    Kind::Beams(_) => Ok(Vec::new()),
                }
            }
        }
    }
}

/// Whether a line waits for the policy.
fn needs_call(line: &Line, left: usize) -> bool {
    matches!(line.pending, Pending::Logits | Pending::Token(_)) && left > 0
}

/// What a sequence needs.
fn wanted(sequence: &mut Sequence, left: usize, request: &Request, most: usize) -> Wanted {
    let settings = sequence.settings.clone();
    if sequence.is_guided() {
        // Banned tokens are left out here.
        let k = settings.candidates + sequence.answer.banned().len();
        return Wanted::Likeliest { k: k.min(most) };
    }
    let told = if request.steps { settings.candidates } else { 0 };
    let log_probs = told.max(settings.log_probs).min(most);
    let least = settings.min_tokens.saturating_sub(sequence.answer.tokens.len());
    let tokens = sequence.room().min(left).max(1);
    let (least, seed) = (least.min(tokens), sequence.seed());
    Wanted::Continuation { n: 1, tokens, least, seed, log_probs, settings }
}

/// Checks that a server can do what a request needs.
///
/// # Errors
/// What it cannot do, and what to do instead.
pub(crate) fn check(policy: &RemotePolicy, request: &Request) -> Result<()> {
    let settings = &request.settings;
    let reads = request.reward.as_ref().is_some_and(|reward| reward.reads_policy());
    let answers = request.want == Want::Answer;
    let guided = answers && settings.method == Method::Args;
    let (k, most) = (settings.candidates, policy.server.most_log_probs());
    let (states, all) =
        (policy.states.is_some(), policy.states.as_ref().is_some_and(|states| states.gives_all()));
    let changes = penalises(&settings.sampling) || !settings.logit_bias.is_empty();
    let repeats = settings.sampling.repetition_penalty != 1.0;
    let parts = answers && settings.decodes_blocks();
    let gate = settings.entropy_gate > 0.0 && settings.sampling.temperature > 0.0;
    let problem = match request.want {
        Want::Samples { hidden: true } if !states => {
            "does not give hidden states: leave them out (--no-hidden), or name a server that gives them (--states)"
                .to_owned()
        }
        Want::Samples { hidden: true } if !all => {
            "has the hidden states of last tokens alone beside it (--states): start that server with \
             --pooler-config.task token_embed, or leave them out (--no-hidden)"
                .to_owned()
        }
        _ if answers && settings.method == Method::Cd => {
            "does not give the hidden states of candidates, which the method cd reads: use args, blockwise or best-of-n"
                .to_owned()
        }
        _ if answers && request.value.is_some() && !states => {
            "does not give hidden states, which value heads read: leave out the value head, or name a server that gives \
             them (--states)"
                .to_owned()
        }
        _ if reads && guided => {
            "does not give the hidden states of candidates, which this reward reads: use blockwise or best-of-n, or a \
             reward that reads text (a classifier, a program, a server, or a head on an embedder)"
                .to_owned()
        }
        _ if reads && !states => {
            "does not give hidden states, which this reward reads: name a server that gives them (--states), or use a \
             reward that reads text (a classifier, a program, a server, or a head on an embedder)"
                .to_owned()
        }
        _ if guided && k > most => {
            format!("gives {most} log-probabilities a step: lower --candidates to {most}, or start it with more")
        }
        _ if guided && changes => {
            "does not show how penalties and biases change its candidates: leave them out, or use best-of-n".to_owned()
        }
        _ if repeats => {
            "counts the prompt in its repetition penalty, which is of the answer alone: use --presence-penalty or \
             --frequency-penalty"
                .to_owned()
        }
        _ if parts && penalises(&settings.sampling) => {
            "would count the tokens of each block alone in its penalties: leave them out, or use best-of-n".to_owned()
        }
        _ if guided && gate => {
            "cannot draw the tokens that an entropy gate leaves unguided: leave out --entropy-gate".to_owned()
        }
        _ => return Ok(()),
    };
    Err(Error::NotRemote(problem))
}
