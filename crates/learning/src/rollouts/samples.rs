//! Reads samples of other programs and groups them by prompt.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use stackelberg_data::hash::Hash;
use stackelberg_data::{Error as FileError, json};
use stackelberg_engine::Prompt;

use super::dataset::MANIFEST;
use super::foreign::{self, Answer, Given, Layout, Line};
use super::manifest::Identity;
use super::table;
use crate::error::Error;

/// Samples of other programs, grouped by prompt in the order of first appearance.
#[derive(Debug)]
pub struct Samples {
    pub(super) prompts: Vec<Source>,
    /// Names of the files, for messages.
    files: Vec<String>,
    /// Number of the prompt of each id.
    ids: HashMap<String, usize>,
}

/// A prompt with its samples, as read.
#[derive(Debug)]
pub(super) struct Source {
    pub id: String,
    pub given: Given,
    pub place: Place,
    pub found: Vec<Found>,
}

/// A sample, as read.
#[derive(Debug)]
pub(super) struct Found {
    pub answer: Answer,
    pub place: Place,
    /// For samples of a dataset of this crate: the fingerprint of the policy that produced the tokens.
    pub by: Option<Arc<str>>,
}

/// Number of a file, and a line (for Parquet: a row) in it, from 1.
pub(super) type Place = (usize, usize);

impl Samples {
    /// Reads files, each of which is JSON lines, one JSON array (plain or gzipped, `-` for standard input) or
    /// Parquet. A row is one of
    ///
    /// - a sample: `response` (or `completion`, `output`, `text`), optionally `reward` (`score`),
    ///   `finish_reason`, `tokens` (`token_ids`), and its prompt: `prompt`, `instruction` or `messages`;
    /// - a prompt with `responses` (`completions`), optionally `rewards` (`scores`);
    /// - a request of vLLM with `outputs` (`text`, `token_ids`), or of OpenAI with `choices`, also inside
    ///   `response.body`. A reward is a field of each output, or an element of the row's `rewards`.
    ///
    /// Rows with the same `prompt_id`, `custom_id` or `id` belong to one prompt, as do rows with equal prompts and
    /// without id. The prompt of a row without one is looked up by its id in `prompts`. Rewards are read only if
    /// `rewards` is true. Other fields are ignored.
    ///
    /// # Errors
    /// A file cannot be read or has no rows. A row is malformed or has no response, its prompt is unknown or differs
    /// from that of another row with its id, or a reward is not finite. Errors name file, line and field.
    pub fn read(files: &[PathBuf], prompts: &[(String, Prompt)], rewards: bool) -> Result<Self, Error> {
        let known: HashMap<&str, &Prompt> = prompts.iter().map(|(id, p)| (id.as_str(), p)).collect();
        let mut samples = Self { prompts: Vec::new(), files: Vec::new(), ids: HashMap::new() };
        for path in files {
            samples.files.push(json::name_of(path));
            let before = samples.count();
            samples.add_file(path, &known, rewards)?;
            if samples.count() == before {
                let file = json::name_of(path);
                return Err(FileError::NoRows { file, what: "samples" }.into());
            }
        }
        Ok(samples)
    }

    fn add_file(
        &mut self,
        path: &Path,
        known: &HashMap<&str, &Prompt>,
        rewards: bool,
    ) -> Result<(), Error> {
        let file = self.files.len() - 1;
        if table::is_parquet(path) {
            let mut own = None;
            return table::read(path, MANIFEST, |note, row, value| {
                let own = own.get_or_insert_with(|| note.map(Own::new));
                self.add(value, (file, row), own.as_ref(), known, rewards)
            });
        }
        let text = json::read_text(path)?;
        for (line, value) in json::values(&self.files[file], &text)? {
            let value = json::parse(value).map_err(|mut problem| {
                if value.contains("NaN") || value.contains("Infinity") {
                    problem.push_str(" (NaN and Infinity are not JSON)");
                }
                self.wrong((file, line), problem)
            })?;
            self.add(value, (file, line), None, known, rewards)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        row: Value,
        place: Place,
        own: Option<&Own>,
        known: &HashMap<&str, &Prompt>,
        rewards: bool,
    ) -> Result<(), Error> {
        let line = foreign::line(&row, rewards).map_err(|problem| self.wrong(place, problem))?;
        let Line { id, mut prompt, answers } = line;
        if let (Some(given), Some(Own { layout: Some(layout), .. })) = (&mut prompt, own) {
            given.layout = layout.clone();
        }
        let number = self.prompt(id, prompt, place, known)?;
        let by = own.map(|own| own.by.clone());
        let found = answers.into_iter().map(|answer| Found { answer, place, by: by.clone() });
        self.prompts[number].found.extend(found);
        Ok(())
    }

    /// The number of a row's prompt, which is added if it is new.
    fn prompt(
        &mut self,
        id: Option<String>,
        given: Option<Given>,
        place: Place,
        known: &HashMap<&str, &Prompt>,
    ) -> Result<usize, Error> {
        let id = match (id, &given) {
            (Some(id), _) => id,
            (None, Some(given)) => given.prompt.name(),
            (None, None) => {
                let problem = "prompt: missing, and the row has no id".to_owned();
                return Err(self.wrong(place, problem));
            }
        };
        if let Some(&number) = self.ids.get(&id) {
            let first = &self.prompts[number];
            if given.is_some_and(|given| {
                (given.prompt, given.layout) != (first.given.prompt.clone(), first.given.layout.clone())
            }) {
                let before = self.place(first.place);
                let problem = format!(
                    "prompt: differs in text or format from that of {before}, which has the same id '{id}': use distinct ids"
                );
                return Err(self.wrong(place, problem));
            }
            return Ok(number);
        }
        let given = given.or_else(|| {
            let prompt = (*known.get(id.as_str())?).clone();
            Some(Given { prompt, tokens: None, layout: Layout::None })
        });
        let Some(given) = given else {
            let problem = match known.is_empty() {
                true => format!("prompt: missing: give a file of prompts with the id '{id}'"),
                false => format!("prompt: missing, and the file of prompts has no id '{id}'"),
            };
            return Err(self.wrong(place, problem));
        };
        self.ids.insert(id.clone(), self.prompts.len());
        self.prompts.push(Source { id, given, place, found: Vec::new() });
        Ok(self.prompts.len() - 1)
    }

    /// Number of prompts.
    pub fn prompts(&self) -> usize {
        self.prompts.len()
    }

    /// Number of samples.
    pub fn count(&self) -> usize {
        self.prompts.iter().map(|source| source.found.len()).sum()
    }

    /// Number of prompts that equal an earlier prompt with another id. Such ids are probably those of samples.
    pub fn repeated(&self) -> usize {
        let mut seen = HashSet::new();
        self.prompts.iter().filter(|source| !seen.insert(format!("{:?}", source.given.prompt))).count()
    }

    /// The identity of the rewards of the files, named `imported`; `None` if no sample has a reward.
    ///
    /// # Errors
    /// Some samples have a reward and others have none.
    pub fn rewards(&self) -> Result<Option<Identity>, Error> {
        let mut hash = Hash::new();
        let (mut some, mut none) = (false, None);
        for source in &self.prompts {
            let rewards: Vec<Option<f64>> = source.found.iter().map(|f| f.answer.reward).collect();
            hash.update(serde_json::json!([source.id, rewards]).to_string());
            for (i, reward) in rewards.iter().enumerate() {
                some |= reward.is_some();
                if reward.is_none() && none.is_none() {
                    none = Some((source, i));
                }
            }
        }
        match none {
            Some((source, i)) if some => {
                let problem = format!(
                    "reward: missing (sample {i} of prompt '{}'), but other samples have one: add it, compute all rewards again, or import without rewards",
                    source.id
                );
                Err(self.wrong(source.found[i].place, problem))
            }
            Some(_) => Ok(None),
            None => Ok(Some(Identity { name: "imported".to_owned(), hash: hash.hex() })),
        }
    }

    pub(super) fn wrong(&self, (file, line): Place, problem: String) -> Error {
        FileError::line(&self.files[file], line, problem).into()
    }

    fn place(&self, (file, line): Place) -> String {
        format!("{}:{line}", self.files[file])
    }
}

/// Properties of the rows of a dataset of this crate.
struct Own {
    /// Format of the prompts; `None` if they are not formatted.
    layout: Option<Layout>,
    /// Fingerprint of the policy.
    by: Arc<str>,
}

impl Own {
    fn new(manifest: &str) -> Self {
        let manifest: Value = serde_json::from_str(manifest).unwrap_or_default();
        let format = manifest["settings"]["prompt_format"].as_str().and_then(|f| f.parse().ok());
        let layout = format.map(|format| Layout::Done(Some(format)));
        Self { layout, by: manifest["model"]["hash"].as_str().unwrap_or_default().into() }
    }
}
