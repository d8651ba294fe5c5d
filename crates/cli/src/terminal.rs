//! Streams an answer to the terminal, token by token.

use std::io::{IsTerminal, Write};

use stackelberg_decoding::{Cancel, Step, Watch};

/// Prints tokens as they are chosen.
pub(crate) struct Printer {
    /// Whether to print each step; if not, steps are only collected.
    live: bool,
    style: Style,
    cancel: Cancel,
    /// The steps so far.
    pub(crate) steps: Vec<Step>,
    /// The error that stopped printing.
    pub(crate) failed: Option<std::io::Error>,
}

impl Printer {
    pub(crate) fn new(live: bool, style: Style, cancel: Cancel) -> Self {
        Self { live, style, cancel, steps: Vec::new(), failed: None }
    }
}

impl Watch for Printer {
    fn step(&mut self, _: usize, _: usize, step: &Step, text: &str) {
        self.steps.push(step.clone());
        if !self.live {
            return;
        }
        let text =
            if step.chosen == step.base_choice { text.to_owned() } else { self.style.changed(text) };
        let mut stdout = std::io::stdout();
        if let Err(error) = write!(stdout, "{text}").and_then(|()| stdout.flush()) {
            self.failed = Some(error);
        }
    }

    fn stop(&self) -> bool {
        self.cancel.is_cancelled() || self.failed.is_some()
    }
}

/// Colours, if standard output is a terminal and NO_COLOR is not set.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) terminal: bool,
    colour: bool,
}

impl Style {
    pub(crate) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let objected = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { terminal, colour: terminal && !objected }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn title(self, text: &str) -> String {
        self.paint("1", &format!("── {text}"))
    }

    fn changed(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}
