//! A reward that a program gives: it reads JSON lines and writes JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Exchange, RewardFormat, TextScorer};
use crate::chat::Prompt;
use crate::error::{Error, Result};

/// A program that scores texts. It is started once, by the shell.
///
/// For every text it gets a line `{"id", "prompt", "response", "text"}` on its standard input: what was asked
/// (a text, or a list of messages), the answer so far, and both laid out as one text. It answers each with
/// a line on its standard output, in the same order: a number, or `{"reward": ...}`. Lines come in batches;
/// a program that buffers its output must flush it after each line, or once it has no line left to read.
pub struct ProgramReward {
    command: String,
    running: Mutex<Running>,
    patience: Duration,
}

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
    asked: u64,
}

/// How long a program may take for a batch of texts before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

impl ProgramReward {
    /// Starts the program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &str) -> Result<Self> {
        let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let child = Command::new(shell)
            .args([flag, command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|e| failed(command, format!("cannot be started: {e}")))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let running = Running { stdin: child.stdin.take(), child, lines, asked: 0 };
        Ok(Self { command: command.to_owned(), running: Mutex::new(running), patience: PATIENCE })
    }

    /// The same, given up after another time.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn fails(&self, what: impl std::fmt::Display) -> Error {
        failed(&self.command, what)
    }

    /// The next line that the program writes.
    fn line(&self, running: &mut Running) -> Result<String> {
        match running.lines.recv_timeout(self.patience) {
            Ok(line) => line.map_err(|e| self.fails(format!("its output cannot be read: {e}"))),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = self.patience.as_secs_f64();
                Err(self.fails(format!("gave no reward within {seconds} s: does it flush its output?")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                // It has closed its output; it may need a moment to end.
                std::thread::sleep(Duration::from_millis(50));
                let how = match running.child.try_wait() {
                    Ok(Some(status)) => format!("ended ({status})"),
                    _ => "closed its output".to_owned(),
                };
                Err(self.fails(format!("{how} before it had scored all texts")))
            }
        }
    }

    fn reward(&self, line: &str) -> Result<f64> {
        let value: Option<Value> = serde_json::from_str(line).ok();
        let number =
            value.as_ref().and_then(|value| value.as_f64().or_else(|| value["reward"].as_f64()));
        number.filter(|x| x.is_finite()).ok_or_else(|| {
            let said: String = line.chars().take(80).collect();
            self.fails(format!("wrote '{said}' where a number or {{\"reward\": number}} is expected"))
        })
    }
}

impl TextScorer for ProgramReward {
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = String::new();
        for exchange in exchanges {
            let line = json!({
                "id": running.asked, "prompt": prompt_json(exchange.prompt), "response": exchange.answer,
                "text": format.lay_out(*exchange),
            });
            running.asked += 1;
            lines.push_str(&format!("{line}\n"));
        }
        let mut stdin = running.stdin.take().ok_or_else(|| self.fails("has failed before"))?;
        // Written by another thread: a program that answers at once must not wait for us to read.
        let writer = std::thread::spawn(move || {
            let written = stdin.write_all(lines.as_bytes()).and_then(|()| stdin.flush());
            (stdin, written)
        });
        let mut rewards = Vec::with_capacity(exchanges.len());
        for _ in exchanges {
            let line = self.line(&mut running)?;
            rewards.push(self.reward(&line)?);
        }
        if let Ok((stdin, Ok(()))) = writer.join() {
            running.stdin = Some(stdin);
        }
        Ok(rewards)
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Hh
    }
}

impl Drop for ProgramReward {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Without input it ends by itself; one that does not is ended.
        running.stdin = None;
        for _ in 0..20 {
            if let Ok(Some(_)) = running.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = running.child.kill();
        let _ = running.child.wait();
    }
}

fn failed(command: &str, what: impl std::fmt::Display) -> Error {
    Error::Scorer(format!("the program '{command}' {what}"))
}

/// A prompt as JSON: a text, or its messages.
fn prompt_json(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Text(text) => json!(text),
        Prompt::Messages(turns) => {
            turns.iter().map(|turn| json!({"role": turn.role, "content": turn.content})).collect()
        }
    }
}
