//! A reward from a program that reads and writes JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use stackelberg_engine::reward::{Exchange, RewardFormat, TextScorer};
use stackelberg_engine::{Error, Prompt, Result};

/// A program that scores texts. The shell starts it once; it runs until the reward is dropped. If it ends, or writes a line that
/// is no answer, the texts that it was asked for have no reward, and it is started again for the next ones.
///
/// For each text the program receives one line on its standard input, a JSON object with these fields:
///
/// | field | type | content |
/// |---|---|---|
/// | `id` | integer | the number of the line, from 0 |
/// | `prompt` | text, or list of `{"role", "content"}` | the prompt |
/// | `response` | text | the answer, which may be unfinished |
/// | `text` | text | prompt and answer as one text, in the reward's format |
///
/// The program writes one line per text to its standard output, in the same order: a number, or an object with a
/// number `reward`. Texts come in batches. A program that buffers its output must flush it after each line, or before
/// it waits for input.
pub struct ProgramReward {
    command: String,
    /// `None` after a failure.
    running: Mutex<Option<Running>>,
    patience: Duration,
}

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
    asked: u64,
}

impl Running {
    fn start(command: &str) -> Result<Self> {
        let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut program = Command::new(shell);
        program.args([flag, command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C at the terminal is for this process, which then ends the program.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut program, 0);
        let mut child =
            program.spawn().map_err(|e| failed(command, format!("cannot be started: {e}")))?;
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
        Ok(Self { stdin: child.stdin.take(), child, lines, asked: 0 })
    }
}

/// The longest wait for one line of the program.
const PATIENCE: Duration = Duration::from_secs(120);

impl ProgramReward {
    /// Starts the program with `sh -c COMMAND` (`cmd /C COMMAND` on Windows).
    ///
    /// # Errors
    /// The shell cannot be started.
    pub fn start(command: &str) -> Result<Self> {
        let running = Mutex::new(Some(Running::start(command)?));
        Ok(Self { command: command.to_owned(), running, patience: PATIENCE })
    }

    /// Sets the longest wait for one line of the program, 120 seconds by default.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn fails(&self, what: impl std::fmt::Display) -> Error {
        failed(&self.command, what)
    }

    /// The next line of the program's output.
    fn line(&self, running: &mut Running) -> Result<String> {
        match running.lines.recv_timeout(self.patience) {
            Ok(line) => line.map_err(|e| self.fails(format!("its output cannot be read: {e}"))),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = self.patience.as_secs_f64();
                Err(self.fails(format!("gave no reward within {seconds} s: does it flush its output?")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                // The program has closed its output and may be about to end.
                std::thread::sleep(Duration::from_millis(50));
                let how = match running.child.try_wait() {
                    Ok(Some(status)) => format!("ended ({status})"),
                    _ => "closed its output".to_owned(),
                };
                Err(self.fails(format!("{how} before it had scored all texts")))
            }
        }
    }

    /// The reward in a line of the program; `None` if it is there but no finite number.
    ///
    /// # Errors
    /// The line is no answer to a text: what follows it would belong to other texts.
    fn reward(&self, line: &str) -> Result<Option<f64>> {
        let value: Option<Value> = serde_json::from_str(line).ok();
        let number = match &value {
            Some(Value::Object(fields)) => fields.get("reward").map(Value::as_f64),
            Some(value) => (value.is_number() || value.is_null()).then(|| value.as_f64()),
            // For example NaN, which JSON does not have.
            None => line.trim().parse().ok().map(Some),
        };
        number.map(|x| x.filter(|x| x.is_finite())).ok_or_else(|| self.wrote(line))
    }

    fn wrote(&self, line: &str) -> Error {
        let said: String = line.chars().take(80).collect();
        self.fails(format!("wrote '{said}' where a number or {{\"reward\": number}} is expected"))
    }

    /// Asks for the rewards of some texts; a line that has none is an error of its own.
    fn ask(
        &self,
        running: &mut Running,
        exchanges: &[Exchange<'_>],
        format: RewardFormat,
    ) -> Result<Vec<Result<f64>>> {
        let mut lines = String::new();
        for exchange in exchanges {
            let line = json!({
                "id": running.asked, "prompt": prompt_json(exchange.prompt), "response": exchange.answer,
                "text": format.lay_out(*exchange),
            });
            running.asked += 1;
            lines.push_str(&format!("{line}\n"));
        }
        let mut stdin = running.stdin.take().ok_or_else(|| self.fails("has closed its input"))?;
        // Another thread writes, because a program that answers at once would block until its output is read.
        let writer = std::thread::spawn(move || {
            let written = stdin.write_all(lines.as_bytes()).and_then(|()| stdin.flush());
            (stdin, written)
        });
        let mut rewards = Vec::with_capacity(exchanges.len());
        for _ in exchanges {
            let line = self.line(running)?;
            rewards.push(self.reward(&line)?.ok_or_else(|| self.wrote(&line)));
        }
        if let Ok((stdin, Ok(()))) = writer.join() {
            running.stdin = Some(stdin);
        }
        Ok(rewards)
    }
}

impl TextScorer for ProgramReward {
    fn is_remote(&self) -> bool {
        true
    }

    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let started = match running.take() {
            Some(running) => running,
            None => Running::start(&self.command)?,
        };
        // A failure ends the program: nobody knows which text its next line would be for.
        let rewards = self.ask(running.insert(started), exchanges, format);
        if rewards.is_err() {
            *running = None;
        }
        rewards?.into_iter().collect()
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Hh
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The end of its input tells the program to end. One that does not end is killed.
        self.stdin = None;
        for _ in 0..20 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
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
