//! The summary, as JSON and as text.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde::Serialize;
use stackelberg_evaluation::judge::{Calls, Identity, Length, Order, Position, Summary};
use stackelberg_evaluation::report::Estimate;

/// The summary with its inputs.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) version: &'static str,
    pub(super) a: &'a Path,
    pub(super) b: &'a Path,
    pub(super) judge: &'a Identity,
    pub(super) orders: &'a [Order],
    pub(super) bootstrap_seed: u64,
    pub(super) cost: Option<f64>,
    #[serde(flatten)]
    pub(super) summary: &'a Summary,
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
            "\n{judged} of {prompts} prompts judged: {} with identical answers, {} in one order only, {} without scores",
            summary.identical, summary.one_sided, summary.unjudged
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
    writeln!(f, "\norder, over {} pairs with scores in both orders", found.pairs)?;
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
    writeln!(f, "\n{needed} calls: {verdicts} verdicts, {failed} failed")?;
    if failed > 0 {
        writeln!(f, "failed: {} (--retry-failed repeats them)", failures(calls))?;
    }
    let spent = &calls.spent;
    let (tokens_in, tokens_out) = (spent.tokens_in, spent.tokens_out);
    write!(f, "{} requests, {tokens_in} input tokens, {tokens_out} output tokens", spent.requests)?;
    if spent.uncounted > 0 {
        write!(f, " (without {} calls for which the server reported none)", spent.uncounted)?;
    }
    match cost {
        Some(cost) => writeln!(f, ", cost {cost:.4}"),
        None => writeln!(f),
    }
}

/// The number of failed calls by kind of failure.
pub(super) fn failures(calls: &Calls) -> String {
    let each = calls.failures.iter().map(|(kind, count)| format!("{count} {}", kind.name()));
    each.collect::<Vec<_>>().join(", ")
}
