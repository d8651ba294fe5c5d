//! Models on the hub. The branch is asked for once, with `config.json`; all other files are of that commit. A
//! model that is cached therefore needs one small request, and none without a network.
//!
//! A repository without `config.json`, or without a model's weights, may have an adapter (LoRA): its files are fetched
//! instead.

mod blob;
mod client;
mod layout;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use blob::{Blob, unwritable};
use client::{About, Client, Trouble, retry};
use layout::Layout;

use crate::files::{ADAPTER, ADAPTER_TOKENIZER, ADAPTER_WEIGHTS, CONFIG, INDEX, TOKENIZER, WEIGHTS};
use crate::reference::is_inside;
use crate::{Hub, HubModel, Progress, SourceError};

const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"];

/// Which files of a model are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// All that a model needs.
    All,
    /// Tokenizer, chat template and configuration, without weights.
    Text,
}

/// The folder of the model's snapshot, with these files.
pub(crate) fn fetch(
    hub: &Hub,
    model: &HubModel,
    files: Files,
    progress: &dyn Fn(Progress),
) -> Result<PathBuf, SourceError> {
    let cache = hub.hub_folder()?;
    let layout = Layout::new(&cache, model);
    let repo = format!("{}/{}", model.org, model.name);
    let revision = model.revision.as_deref().unwrap_or("main");
    let kept = [CONFIG, ADAPTER].into_iter().find_map(|file| layout.commit(revision, file));
    let mut download = Download { repo, revision, cache, layout, network: Network::Off, progress };
    // A commit never changes: if it is in the cache, the hub need not be asked for it.
    let pinned = kept.as_deref() == Some(revision);
    if !hub.offline {
        download.network = Network::On(Client::new(hub, model).map_err(|e| download.error(e))?);
    }
    let commit = match kept {
        Some(kept) if pinned || hub.offline => kept,
        kept => download.commit(kept)?,
    };
    download.snapshot(&commit, files)
}

enum Network {
    On(Client),
    /// The hub cannot be reached, so only the cache is used.
    Down(String),
    /// Offline mode.
    Off,
}

struct Download<'a> {
    /// `ORG/NAME`.
    repo: String,
    revision: &'a str,
    cache: PathBuf,
    layout: Layout,
    network: Network,
    progress: &'a dyn Fn(Progress),
}

impl Download<'_> {
    /// The commit of the revision, from the hub; from the cache, `kept`, if the hub cannot be reached.
    fn commit(&mut self, kept: Option<String>) -> Result<String, SourceError> {
        let Network::On(client) = &self.network else { return Err(self.lacks(CONFIG)) };
        // Without retries if the cache has the file.
        let ask = |file: &'static str| {
            let once = || client.about(file, self.revision);
            (file, if kept.is_some() { once() } else { retry(once) })
        };
        let (file, asked) = match ask(CONFIG) {
            (_, Err(Trouble::NoFile)) => ask(ADAPTER),
            asked => asked,
        };
        match (asked, kept) {
            (Ok(about), _) => {
                self.bring(client, file, &about.commit, &about).map_err(|e| self.error(e))?;
                Ok(about.commit)
            }
            (Err(Trouble::Unreachable(why) | Trouble::Failing(why)), Some(kept)) => {
                self.network = Network::Down(why);
                Ok(kept)
            }
            (Err(Trouble::NoFile), _) => Err(self.lacks(CONFIG)),
            (Err(trouble), _) => Err(self.error(trouble)),
        }
    }

    /// Completes the snapshot of a commit and records it as the revision's.
    fn snapshot(&self, commit: &str, files: Files) -> Result<PathBuf, SourceError> {
        match self.file(CONFIG, commit)? {
            Some(_) => self.model(commit, files)?,
            None => self.adapter(commit, files)?,
        }
        if matches!(self.network, Network::On(_)) && self.revision != commit {
            let recorded = self.layout.set_commit(self.revision, commit);
            recorded.map_err(|e| self.error(unwritable(&self.cache, e)))?;
        }
        Ok(self.layout.snapshot(commit))
    }

    /// Brings the files of a model, or those of an adapter beside which there are no weights of a model.
    fn model(&self, commit: &str, files: Files) -> Result<(), SourceError> {
        self.needed(TOKENIZER, commit)?;
        for file in OPTIONAL {
            self.file(file, commit)?;
        }
        if files == Files::Text || self.file(WEIGHTS, commit)?.is_some() {
            return Ok(());
        }
        match self.file(INDEX, commit)? {
            Some(index) => {
                self.shards(&index)?.iter().try_for_each(|shard| self.needed(shard, commit).map(drop))
            }
            None if self.file(ADAPTER, commit)?.is_some() => self.adapter(commit, files),
            None => Err(self.lacks(WEIGHTS)),
        }
    }

    /// Brings the files of an adapter.
    fn adapter(&self, commit: &str, files: Files) -> Result<(), SourceError> {
        if files == Files::All {
            self.needed(ADAPTER_WEIGHTS, commit)?;
        }
        ADAPTER_TOKENIZER.iter().try_for_each(|file| self.file(file, commit).map(drop))
    }

    /// A file that the commit must have.
    fn needed(&self, file: &str, commit: &str) -> Result<PathBuf, SourceError> {
        self.file(file, commit)?.ok_or_else(|| self.lacks(file))
    }

    /// A file of a commit; `None` if the commit has none, or without a network if the cache has none.
    fn file(&self, file: &str, commit: &str) -> Result<Option<PathBuf>, SourceError> {
        let path = self.layout.snapshot(commit).join(file);
        if path.exists() {
            return Ok(Some(path));
        }
        let Network::On(client) = &self.network else { return Ok(None) };
        if self.layout.is_absent(commit, file) {
            return Ok(None);
        }
        match retry(|| client.about(file, commit)) {
            Ok(about) => {
                let path = self.bring(client, file, commit, &about);
                path.map(Some).map_err(|e| self.error(e))
            }
            Err(Trouble::NoFile | Trouble::NotFound) => {
                // Without the record the next run asks again.
                let _ = self.layout.set_absent(commit, file);
                Ok(None)
            }
            Err(trouble) => Err(self.error(trouble)),
        }
    }

    fn bring(
        &self,
        client: &Client,
        file: &str,
        commit: &str,
        about: &About,
    ) -> Result<PathBuf, Trouble> {
        let (layout, repo, progress) = (&self.layout, &self.repo, self.progress);
        Blob { client, layout, repo, file, about, progress }.bring()?;
        layout.link(&about.etag, commit, file).map_err(|e| unwritable(&self.cache, e))
    }

    /// The files that an index of shards names.
    fn shards(&self, index: &Path) -> Result<BTreeSet<String>, SourceError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text =
            fs::read(index).map_err(|source| SourceError::Io { path: index.to_owned(), source })?;
        let read: Index = serde_json::from_slice(&text).map_err(|e| self.damaged(index, &e))?;
        let shards: BTreeSet<String> = read.weight_map.into_values().collect();
        match shards.iter().find(|shard| !is_inside(shard)) {
            Some(evil) => Err(SourceError::UnsafePath { archive: INDEX.to_owned(), name: evil.clone() }),
            None => Ok(shards),
        }
    }

    /// Removes a damaged index together with the blob that it links to.
    fn damaged(&self, index: &Path, why: &serde_json::Error) -> SourceError {
        if let Ok(blob) = fs::canonicalize(index) {
            // If these fail, the next run finds the same damage and reports it again.
            let _ = fs::remove_file(blob);
        }
        let _ = fs::remove_file(index);
        let (repo, file) = (self.repo.clone(), INDEX.to_owned());
        SourceError::HubDamaged { repo, file, why: why.to_string() }
    }

    /// The error for a file that a model needs and that is not there.
    fn lacks(&self, file: &str) -> SourceError {
        let (repo, file) = (self.repo.clone(), file.to_owned());
        match &self.network {
            Network::On(_) => SourceError::HubNoFile { repo, file },
            Network::Down(why) => SourceError::HubUnreachable { repo, why: why.clone() },
            Network::Off => SourceError::HubOffline { repo, file, cache: self.cache.clone() },
        }
    }

    fn error(&self, trouble: Trouble) -> SourceError {
        let repo = self.repo.clone();
        match trouble {
            Trouble::Unreachable(why) => SourceError::HubUnreachable { repo, why },
            Trouble::Denied(status) => SourceError::HubDenied { repo, status },
            Trouble::NoRepo => SourceError::HubNotFound { what: repo },
            Trouble::NotFound if self.revision == "main" => SourceError::HubNotFound { what: repo },
            Trouble::NoRevision | Trouble::NotFound => {
                SourceError::HubNotFound { what: format!("{repo}@{}", self.revision) }
            }
            Trouble::NoFile => SourceError::HubNoFile { repo, file: CONFIG.to_owned() },
            Trouble::Failing(why) | Trouble::Other(why) => SourceError::Hub { repo, why },
            Trouble::Source(error) => error,
        }
    }
}
