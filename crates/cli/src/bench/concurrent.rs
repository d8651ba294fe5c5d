//! Prints the measurements of concurrent requests.

use stackelberg_experiment::load::{Concurrent, K, Load, Point, Rate, headings};

pub(super) const FULL: Load = Load { rounds: 3, requests: 2, tokens: 16 };
pub(super) const QUICK: Load = Load { rounds: 1, requests: 2, tokens: 6 };

/// The figures as a text table.
pub(super) fn table(concurrent: &Concurrent) -> String {
    let mut table = format!("{:<28}", "requests at once");
    concurrent.0.keys().for_each(|n| table.push_str(&format!("{n:>24}")));
    table.push_str(&format!("\n{:<28}", ""));
    concurrent.0.keys().for_each(|_| table.push_str("   tok/s  of base  first"));
    table.push('\n');
    for (name, heading) in headings() {
        table.push_str(&format!("{heading:<28}"));
        for point in concurrent.0.values() {
            let Rate { tokens_per_s, relative_to_base, first_token_ms } = &point.rates[name];
            table.push_str(&format!("{tokens_per_s:>8.1}{relative_to_base:>9.2}{first_token_ms:>7.0}"));
        }
        table.push('\n');
    }
    table.push_str("first: median milliseconds from the arrival of a request to its first token\n");
    for (n, Point { guided_step_ms, forward_ms, step_ratio, .. }) in &concurrent.0 {
        table.push_str(&format!(
            "exact guided step of {n} sequences {guided_step_ms:.1} ms, bare forward of {} rows {forward_ms:.1} ms: {step_ratio:.3}\n",
            n * K
        ));
    }
    table
}
