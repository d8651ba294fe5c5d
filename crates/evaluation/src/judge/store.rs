//! The verdict file: one JSON line per verdict, written when it arrives.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use stackelberg_data::json::filled_lines;

use super::error::Error;
use super::identity::Identity;
use super::pairs::Call;
use super::verdict::Verdict;

/// The verdict file of one judge, and its verdicts.
#[derive(Debug)]
pub struct Store {
    /// `None` for a store that is only read.
    file: Option<File>,
    path: PathBuf,
    held: Held,
}

/// The verdict and the cost of each call, by the hashes of prompt, first and second answer. A verdict with scores replaces
/// a failure; otherwise the later line replaces the earlier one. Costs are added up.
type Held = HashMap<[String; 3], (Verdict, Spent)>;

/// The cost of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Spent {
    /// The number of requests.
    pub requests: u64,
    /// The number of replies.
    pub replies: u64,
    /// The number of calls with replies for which the server did not report the tokens.
    pub uncounted: u64,
    /// The tokens of the prompts.
    pub tokens_in: u64,
    /// The tokens of the replies.
    pub tokens_out: u64,
}

impl Spent {
    fn of(verdict: &Verdict) -> Self {
        let unknown = verdict.tokens_in.is_none() || verdict.tokens_out.is_none();
        Self {
            requests: verdict.requests,
            replies: verdict.replies,
            uncounted: u64::from(unknown && verdict.replies > 0),
            tokens_in: verdict.tokens_in.unwrap_or(0),
            tokens_out: verdict.tokens_out.unwrap_or(0),
        }
    }

    /// Adds the cost of other calls.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.replies += other.replies;
        self.uncounted += other.uncounted;
        self.tokens_in += other.tokens_in;
        self.tokens_out += other.tokens_out;
    }

    /// The price, given the prices of a million tokens of prompts and of replies.
    pub fn cost(&self, price_in: f64, price_out: f64) -> f64 {
        (self.tokens_in as f64 * price_in + self.tokens_out as f64 * price_out) / 1e6
    }
}

impl Store {
    /// Opens or creates a verdict file and locks it against other processes. An incomplete last line, which a killed run
    /// left, is removed.
    ///
    /// # Errors
    /// The file cannot be read or written; it holds other content, or verdicts of another judge; another process writes
    /// to it. The file is then unchanged.
    pub fn open(path: &Path, identity: &Identity) -> Result<Self, Error> {
        let name = path.display().to_string();
        let cannot = |source| Error::File { doing: "write", file: name.clone(), source };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { file: name }),
            // Some file systems do not support locks.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(cannot(e)),
        }
        let (held, end) = read(&mut file, &name, identity)?;
        match end {
            End::Whole => {}
            End::Cut(length) => file.set_len(length).map_err(cannot)?,
            End::Unclosed => file.write_all(b"\n").map_err(cannot)?,
        }
        Ok(Self { file: Some(file), path: path.to_owned(), held })
    }

    /// Reads a verdict file without writing to it. A missing file counts as empty.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn look(path: &Path, identity: &Identity) -> Result<Self, Error> {
        let name = path.display().to_string();
        let held = match File::open(path) {
            Ok(mut file) => read(&mut file, &name, identity)?.0,
            Err(e) if e.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(source) => return Err(Error::File { doing: "read", file: name, source }),
        };
        Ok(Self { file: None, path: path.to_owned(), held })
    }

    /// The verdict on a call.
    pub fn get(&self, call: &Call<'_>) -> Option<&Verdict> {
        self.held.get(&call.texts).map(|(verdict, _)| verdict)
    }

    /// The cost of a call, including failures before its verdict.
    pub fn spent(&self, call: &Call<'_>) -> Spent {
        self.held.get(&call.texts).map(|(_, spent)| *spent).unwrap_or_default()
    }

    /// The number of calls with verdicts.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are no verdicts.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Appends a verdict to the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, verdict: Verdict) -> Result<(), Error> {
        let cannot =
            |source| Error::File { doing: "write", file: self.path.display().to_string(), source };
        let mut line = serde_json::to_vec(&verdict).map_err(|e| cannot(e.into()))?;
        line.push(b'\n');
        if let Some(file) = &mut self.file {
            file.write_all(&line).map_err(cannot)?;
        }
        keep(&mut self.held, verdict);
        Ok(())
    }
}

impl Drop for Store {
    /// Removes the file if it is empty.
    fn drop(&mut self) {
        let is_empty =
            |file: &File| file.metadata().is_ok_and(|known| known.is_file() && known.len() == 0);
        if self.file.as_ref().is_some_and(is_empty) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn keep(held: &mut Held, verdict: Verdict) {
    let texts = [&verdict.prompt, &verdict.first, &verdict.second].map(String::clone);
    let took = Spent::of(&verdict);
    match held.entry(texts) {
        Entry::Vacant(place) => {
            place.insert((verdict, took));
        }
        Entry::Occupied(mut place) => {
            let (before, spent) = place.get_mut();
            spent.add(&took);
            if verdict.scores.is_some() || before.scores.is_none() {
                *before = verdict;
            }
        }
    }
}

/// How a verdict file ends.
enum End {
    Whole,
    /// With an incomplete line after this many bytes.
    Cut(u64),
    /// With a complete line without a line break.
    Unclosed,
}

fn read(file: &mut File, name: &str, identity: &Identity) -> Result<(Held, End), Error> {
    let wrong = |line, problem: String| Error::Line { file: name.to_owned(), line, problem };
    let mut bytes = Vec::new();
    let cannot = |source| Error::File { doing: "read", file: name.to_owned(), source };
    file.read_to_end(&mut bytes).map_err(cannot)?;
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let rest = &bytes[whole..];
    let text = std::str::from_utf8(&bytes[..whole]).map_err(|_| wrong(1, "not UTF-8".to_owned()))?;
    let (mut held, mut count) = (HashMap::new(), 0);
    let mut take = |line: usize, text: &str| -> Result<(), Error> {
        let verdict: Verdict = serde_json::from_str(text).map_err(|e| wrong(line, e.to_string()))?;
        check(name, line, &verdict, identity)?;
        keep(&mut held, verdict);
        Ok(())
    };
    for (line, text) in filled_lines(text) {
        take(line, text)?;
        count = line;
    }
    let begins = |beginning: &[u8]| rest.starts_with(beginning) || beginning.starts_with(rest);
    let end = if rest.is_empty() {
        End::Whole
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(rest).is_ok() {
        take(count + 1, &String::from_utf8_lossy(rest))?;
        End::Unclosed
    } else if begins(b"{\"id\":\"") {
        End::Cut(whole as u64)
    } else {
        return Err(wrong(count + 1, "it does not begin with an id".to_owned()));
    };
    Ok((held, end))
}

fn check(name: &str, line: usize, verdict: &Verdict, is: &Identity) -> Result<(), Error> {
    let was = &verdict.identity;
    let extra = |of: &Identity| serde_json::Value::from(of.extra.clone()).to_string();
    let number = |value: Option<f64>| value.map_or("none".to_owned(), |value| value.to_string());
    let seed = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
    let fields = [
        ("model", was.model.clone(), is.model.clone()),
        ("form", was.form.clone(), is.form.clone()),
        ("temperature", number(was.temperature), number(is.temperature)),
        ("seed", seed(was.seed), seed(is.seed)),
        ("more of the request", extra(was), extra(is)),
    ];
    match fields.into_iter().find(|(_, was, is)| was != is) {
        Some((field, was, is)) => Err(Error::OtherJudge { file: name.to_owned(), line, field, was, is }),
        None => Ok(()),
    }
}
