//! The output file of a run: one line per finished response, resumable.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::generations::{Record, Response};
use crate::prompt::Prompt;
use crate::renamed::{to_current, to_first};

/// Settings of a run, equal in all lines of its file. Runs with equal identities give equal responses.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The method's name.
    pub method: String,
    /// All settings.
    pub settings: Value,
    /// The random seed.
    pub seed: u64,
    /// Hash of the reward, if there is one.
    pub reward_hash: Option<String>,
    /// Hash of the value head, if there is one.
    pub value_hash: Option<String>,
    /// Hash of the chat templates that lay out the texts, if some do. It is no part of [`Identity::value`], and lines
    /// of before it was written fit any.
    pub template_hash: Option<String>,
}

impl Identity {
    /// As one JSON value.
    pub fn value(&self) -> Value {
        json!({
            "method": self.method, "settings": self.settings, "seed": self.seed,
            "reward_hash": self.reward_hash, "value_hash": self.value_hash,
        })
    }

    /// The same with the first name of each setting. Addresses of runs are made of it, so that runs from before a
    /// setting was renamed are found.
    pub fn first_value(&self) -> Value {
        let mut value = self.value();
        to_first(&mut value["settings"]);
        value
    }

    /// Adds these settings to a response's record.
    pub fn record(&self, record: Record) -> Record {
        Record {
            method: Some(self.method.clone()),
            settings: Some(self.settings.clone()),
            seed: Some(self.seed),
            reward_hash: self.reward_hash.clone(),
            value_hash: self.value_hash.clone(),
            template_hash: self.template_hash.clone(),
            ..record
        }
    }
}

/// The prompts of finished responses by id, each with the number of its line.
type Finished = HashMap<String, Vec<(usize, Value)>>;

/// Writes responses to a JSON lines file or to standard output.
pub struct Journal {
    out: Box<dyn Write>,
    path: Option<PathBuf>,
    done: Finished,
    /// Whether the file was created by this run and is still empty; it is then removed.
    empty: bool,
}

impl Journal {
    /// Opens the output; `None` is standard output. With `resume`, an existing file is continued.
    ///
    /// # Errors
    /// The file exists and `resume` is false, it has other settings, another process writes to it, or it cannot be
    /// written.
    pub fn open(path: Option<&Path>, resume: bool, identity: &Identity) -> Result<Self> {
        let Some(path) = path else {
            let (out, done) = (Box::new(std::io::stdout()), Finished::new());
            return Ok(Self { out, path: None, done, empty: false });
        };
        let cannot = |source| Error::write(path, source);
        let there = path.is_file() && path.metadata().map_err(cannot)?.len() > 0;
        if there && !resume {
            return Err(Error::File {
                file: format!("{} exists", path.display()),
                problem: "add --resume to continue it, or name another file".to_owned(),
            });
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).map_err(cannot)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::file(path, "another process writes to it"));
            }
            // Some file systems do not support locks.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let done = if there { finished_lines(&mut file, path, identity)? } else { Finished::new() };
        let empty = !path.is_file() || file.metadata().map_err(cannot)?.len() == 0;
        Ok(Self { out: Box::new(file), path: Some(path.to_owned()), done, empty })
    }

    /// Whether the file already has a response to this prompt.
    ///
    /// # Errors
    /// It has one to another prompt with the same id.
    pub fn has(&self, id: &str, prompt: &Prompt) -> Result<bool> {
        let Some(lines) = self.done.get(id) else { return Ok(false) };
        let prompt = json!(prompt);
        if lines.iter().any(|(_, answered)| *answered == prompt) {
            return Ok(true);
        }
        let Some((line, was)) = lines.first() else { return Ok(false) };
        let name = self.path.as_deref().unwrap_or(Path::new("-")).display().to_string();
        let problem = format!(
            "id: '{id}' answers the prompt {}, this run has {} under it: give the changed prompt another id, or \
             use another file",
            excerpt(was),
            excerpt(&prompt)
        );
        Err(Error::line(&name, *line, problem))
    }

    /// The ids of the prompts with a response in the file.
    pub fn ids(&self) -> HashSet<String> {
        self.done.keys().cloned().collect()
    }

    /// Writes a response as one line and flushes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, response: &Response) -> Result<()> {
        self.empty = false;
        let line = serde_json::to_vec(response).map(|mut line| {
            line.push(b'\n');
            line
        });
        let written = line.map_err(Into::into).and_then(|line| {
            self.out.write_all(&line)?;
            self.out.flush()
        });
        written.map_err(|e| Error::write(self.path.as_deref().unwrap_or(Path::new("-")), e))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_ref().filter(|path| self.empty && path.is_file()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Reads the lines of a stopped run and removes an incomplete last line.
fn finished_lines(file: &mut File, path: &Path, identity: &Identity) -> Result<Finished> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|e| Error::read(path, e))?;
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let name = path.display().to_string();
    let ours = identity.value();
    let mut done = Finished::new();
    for (number, line) in (1..).zip(bytes[..whole].split(|&b| b == b'\n')).filter(|(_, l)| !l.is_empty())
    {
        let wrong = |problem: String| Error::line(&name, number, problem);
        let mut value: Value = serde_json::from_slice(line)
            .map_err(|e| wrong(format!("not an answer of `generate`: {e}")))?;
        to_current(&mut value["settings"]);
        // The fingerprint tells models apart. A name may be spelled in several ways, and a server may have moved.
        let (was, is) = (&mut value["settings"], &ours["settings"]);
        if is["model_fingerprint"].is_string() && was["model_fingerprint"] == is["model_fingerprint"] {
            was["model"] = is["model"].clone();
        }
        for (field, is) in ours.as_object().into_iter().flatten() {
            if value[field] != *is {
                let (what, was, is) = difference(field, &value[field], is);
                return Err(wrong(format!(
                    "written with {what} {was}, this run has {is}: use the same settings or another file"
                )));
            }
        }
        if let (Some(was), Some(is)) = (value["template_hash"].as_str(), &identity.template_hash)
            && was != is
        {
            return Err(wrong(format!(
                "written with another chat template (template_hash {was:.12}, this run has {is:.12}): use the same \
                 template or another file"
            )));
        }
        let id = value["id"].as_str().unwrap_or_default().to_owned();
        done.entry(id).or_default().push((number, value["prompt"].take()));
    }
    if whole < bytes.len() {
        file.set_len(whole as u64).map_err(|e| Error::write(path, e))?;
    }
    Ok(done)
}

/// The first setting that differs, with both values.
fn difference(field: &str, was: &Value, is: &Value) -> (String, Value, Value) {
    let inner =
        is.as_object().and_then(|map| map.iter().find(|(key, value)| was[key.as_str()] != **value));
    match inner {
        Some((key, value)) => (key.clone(), was[key.as_str()].clone(), value.clone()),
        None => (field.to_owned(), was.clone(), is.clone()),
    }
}

/// The beginning of a prompt, or its end where it is a conversation, for messages.
fn excerpt(prompt: &Value) -> String {
    let text = match prompt.as_array().and_then(|turns| turns.last()) {
        Some(last) => &last["content"],
        None => prompt,
    };
    let text = text.as_str().unwrap_or_default();
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{more}")
}
