//! Writes a made-up report, for looking at and for the browser's check:
//! `target/release/examples/report_fixture report.html 1000`, after a build with `--all-targets`.

#[path = "../tests/common/fixture.rs"]
mod fixture;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(out), prompts) = (arguments.next(), arguments.next()) else {
        eprintln!("which file? report_fixture OUT.html [PROMPTS]");
        return ExitCode::from(2);
    };
    let Ok(prompts) = prompts.as_deref().unwrap_or("100").parse() else {
        eprintln!("PROMPTS: a number of prompts");
        return ExitCode::from(2);
    };
    let written = stackelberg_evaluation::report::page(&fixture::report(prompts))
        .map_err(|e| e.to_string())
        .and_then(|page| std::fs::write(&out, page).map_err(|e| format!("{out}: {e}")));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
