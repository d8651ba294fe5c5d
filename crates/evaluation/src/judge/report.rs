//! The summary, as JSON and as text.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use super::{Calls, Identity, Length, Order, Position, Summary};
use crate::report::Estimate;
use serde::Serialize;
use stackelberg_data::words::count as counted;

/// The summary with its inputs.
#[derive(Serialize)]
pub struct Report<'a> {
    /// The version of the program.
    pub version: &'static str,
    /// The file of run A.
    pub a: &'a Path,
    /// The file of run B.
    pub b: &'a Path,
    /// The judge.
    pub judge: &'a Identity,
    /// The orders that were asked for.
    pub orders: &'a [Order],
    /// Seed of the bootstrap.
    pub bootstrap_seed: u64,
    /// The cost of all calls, if prices are known.
    pub cost: Option<f64>,
    /// The summary.
    #[serde(flatten)]
    pub summary: &'a Summary,
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { a, b, judge, orders, summary, cost, .. } = self;
        let how = match orders.len() > 1 {
            true => "both orders",
            false => "one order",
        };
        writeln!(f, "A: {}\nB: {}", a.display(), b.display())?;
        writeln!(f, "judged by {}, form {}, {how}", judge.model, judge.form)?;
        let (judged, prompts) = (summary.judged, summary.prompts);
        writeln!(
            f,
            "\n{judged} of {} judged: {} with identical answers, {} in one order only, {} without scores",
            counted(prompts, "prompt"),
            summary.identical,
            summary.one_sided,
            summary.unjudged
        )?;
        if judged == 0 {
            return calls(f, &summary.calls, *cost);
        }
        writeln!(f, "A wins {}, ties {}, loses {}\n", summary.win, summary.tie, summary.lose)?;
        writeln!(f, "share of prompts, with 95 percent bootstrap intervals")?;
        share(f, "  A wins or ties", summary.win_tie_rate)?;
        share(f, "  A wins", summary.win_rate)?;
        share(f, "  A preferred (a tie counts half)", summary.preference)?;
        share(f, "  A preferred, at equal length", summary.length.controlled)?;
        points(f, "  score of A minus B", summary.difference)?;
        if let Some(found) = &summary.position {
            position(f, found)?;
        }
        length(f, &summary.length)?;
        calls(f, &summary.calls, *cost)
    }
}

fn share(f: &mut Formatter<'_>, label: &str, of: Option<Estimate>) -> fmt::Result {
    match of.map(|e| [e.mean, e.low, e.high].map(|x| 100.0 * x)) {
        Some([mean, low, high]) => writeln!(f, "{label:<34}{mean:>6.1}%  [{low:.1}, {high:.1}]"),
        None => writeln!(f, "{label:<34}{:>7}", "-"),
    }
}

fn points(f: &mut Formatter<'_>, label: &str, of: Option<Estimate>) -> fmt::Result {
    match of {
        Some(Estimate { mean, low, high }) => {
            writeln!(f, "{label:<34}{mean:>+7.2}  [{low:+.2}, {high:+.2}]")
        }
        None => writeln!(f, "{label:<34}{:>7}", "-"),
    }
}

fn position(f: &mut Formatter<'_>, found: &Position) -> fmt::Result {
    writeln!(f, "\norder, over {} with scores in both orders", counted(found.pairs, "pair"))?;
    share(f, "  the order decides the winner", Some(found.flip_rate))?;
    share(f, "  first preferred (a tie is half)", Some(found.first_preferred))?;
    points(f, "  score of first minus second", Some(found.first_ahead))
}

fn length(f: &mut Formatter<'_>, found: &Length) -> fmt::Result {
    let (a, b) = (found.mean_a.unwrap_or(0.0), found.mean_b.unwrap_or(0.0));
    writeln!(f, "\nlength: {a:.0} characters on average in A, {b:.0} in B")?;
    share(f, "  the longer answer wins", found.longer_wins)?;
    points(f, "  correlation of score and length", found.correlation)
}

fn calls(f: &mut Formatter<'_>, calls: &Calls, cost: Option<f64>) -> fmt::Result {
    let (needed, verdicts, failed) = (calls.needed, calls.verdicts, calls.failed());
    writeln!(f, "\n{}: {}, {failed} failed", counted(needed, "call"), counted(verdicts, "verdict"))?;
    if failed > 0 {
        writeln!(f, "failed: {} (--retry-failed repeats them)", calls.reasons())?;
    }
    let spent = &calls.spent;
    let (tokens_in, tokens_out) = (spent.tokens_in, spent.tokens_out);
    write!(
        f,
        "{}, {}, {}",
        counted(spent.requests, "request"),
        counted(tokens_in, "input token"),
        counted(tokens_out, "output token")
    )?;
    if spent.uncounted > 0 {
        let calls = counted(spent.uncounted, "call");
        write!(f, " (without {calls} for which the server reported none)")?;
    }
    match cost {
        Some(cost) => writeln!(f, ", cost {cost:.4}"),
        None => writeln!(f),
    }
}

impl Calls {
    /// The number of failed calls by kind of failure.
    pub fn reasons(&self) -> String {
        let each = self.failures.iter().map(|(kind, count)| format!("{count} {}", kind.name()));
        each.collect::<Vec<_>>().join(", ")
    }
}
