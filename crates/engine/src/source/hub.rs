//! Models on the hub, through its own client: its cache (`HF_HOME`), its token (`HF_TOKEN`), its
//! endpoint (`HF_ENDPOINT`). The branch is asked for once, by `config.json`; all other files are of that
//! commit, so a model that is cached needs one small request, and none without a network.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFClientSync, HFError, HFRepositorySync, RepoTypeModel};
use serde::de::IgnoredAny;

use super::reference::is_inside;
use super::{HubModel, Progress, SourceError, cache};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const NEEDED: &str = "tokenizer.json";
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"];

/// The folder of the model's snapshot, with all the files that a model needs.
pub(super) fn fetch(model: &HubModel, progress: &dyn Fn(Progress)) -> Result<PathBuf, SourceError> {
    let (send, receive) = channel();
    // The client reports from threads of its own; the caller wants to hear it on this one.
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let folder = Download::start(model, send.clone()).and_then(|download| download.snapshot());
            // Nobody listens any more only if the caller panicked.
            let _ = send.send(None);
            folder
        });
        while let Ok(Some(event)) = receive.recv() {
            progress(event);
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Download<'a> {
    model: &'a HubModel,
    files: HFRepositorySync<RepoTypeModel>,
    hub_cache: PathBuf,
    listener: Sender<Option<Progress>>,
}

/// Passes what the client reports on to the calling thread.
struct Reporter {
    what: String,
    listener: Sender<Option<Progress>>,
}

impl ProgressHandler for Reporter {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else { return };
        let (done, total) = match event {
            DownloadEvent::Start { total_bytes, .. } => (0, *total_bytes),
            DownloadEvent::Progress { files } => match files.first() {
                Some(file) => (file.bytes_completed, file.total_bytes),
                None => return,
            },
            DownloadEvent::AggregateProgress { bytes_completed, total_bytes, .. } => {
                (*bytes_completed, *total_bytes)
            }
            DownloadEvent::Complete => return,
        };
        let total = (total > 0).then_some(total);
        let _ = self.listener.send(Some(Progress::Downloading { what: self.what.clone(), done, total }));
    }
}

impl<'a> Download<'a> {
    fn start(model: &'a HubModel, listener: Sender<Option<Progress>>) -> Result<Self, SourceError> {
        let other = |e: HFError| SourceError::Hub { repo: repo(model), why: e.to_string() };
        let client = HFClientSync::new().map_err(other)?;
        let files = client.model(&model.org, &model.name);
        Ok(Self { model, files, hub_cache: hf_hub::resolve_cache_dir(), listener })
    }

    fn snapshot(&self) -> Result<PathBuf, SourceError> {
        let revision = self.model.revision.as_deref().unwrap_or("main");
        let config = match self.download(CONFIG, revision)? {
            Some(config) => config,
            None => return Err(self.why_no_config(revision)),
        };
        // HUB/models--ORG--NAME/snapshots/COMMIT/config.json
        let commit = config.parent().and_then(|folder| Some((folder, folder.file_name()?.to_str()?)));
        let Some((folder, commit)) = commit else {
            return Err(self.other(&format!("{} is no snapshot", config.display())));
        };
        self.needed(NEEDED, commit)?;
        for file in OPTIONAL {
            self.optional(file, commit)?;
        }
        if self.optional(WEIGHTS, commit)?.is_none() {
            let index = self.optional(INDEX, commit)?.ok_or_else(|| self.no_file(WEIGHTS))?;
            for shard in self.shards(&index)? {
                self.needed(&shard, commit)?;
            }
        }
        Ok(folder.to_owned())
    }

    /// The files that an index of shards names.
    fn shards(&self, index: &Path) -> Result<BTreeSet<String>, SourceError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: std::collections::BTreeMap<String, String>,
        }
        let text =
            fs::read(index).map_err(|source| SourceError::Io { path: index.to_owned(), source })?;
        let read: Index =
            serde_json::from_slice(&text).map_err(|e| self.damaged(INDEX, index, &e.to_string()))?;
        let shards: BTreeSet<String> = read.weight_map.into_values().collect();
        match shards.iter().find(|shard| !is_inside(shard)) {
            Some(evil) => Err(SourceError::UnsafePath { archive: INDEX.to_owned(), name: evil.clone() }),
            None => Ok(shards),
        }
    }

    fn needed(&self, file: &str, commit: &str) -> Result<PathBuf, SourceError> {
        self.optional(file, commit)?.ok_or_else(|| self.no_file(file))
    }

    /// A file of a commit, from the cache if it is there or known to be absent; a commit never changes.
    fn optional(&self, file: &str, commit: &str) -> Result<Option<PathBuf>, SourceError> {
        let kept =
            self.files.download_file().filename(file).revision(commit).local_files_only(true).send();
        match kept {
            Ok(path) => Ok(Some(path)),
            Err(HFError::EntryNotFound { .. }) => Ok(None),
            Err(_) => self.download(file, commit),
        }
    }

    /// A file from the network, checked; `None` if the hub has none. Without a network a branch's file
    /// comes from the cache.
    fn download(&self, file: &str, revision: &str) -> Result<Option<PathBuf>, SourceError> {
        let what = format!("{}/{file}", repo(self.model));
        let reporter = Reporter { what, listener: self.listener.clone() };
        match self.files.download_file().filename(file).revision(revision).progress(reporter).send() {
            Ok(path) => self.check(file, &path).map(|()| Some(path)),
            Err(HFError::EntryNotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(e)),
        }
    }

    /// The client stores whatever arrived, an error page too. Large files are stored under their sha256;
    /// small ones are JSON, or a template that has no form to check.
    fn check(&self, file: &str, path: &Path) -> Result<(), SourceError> {
        let io = |source| SourceError::Io { path: path.to_owned(), source };
        let stored = fs::canonicalize(path).map_err(io)?;
        let digest = stored.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            let event = Progress::Verifying { what: format!("{}/{file}", repo(self.model)) };
            let _ = self.listener.send(Some(event));
            let found = cache::sha256_file(&stored).map_err(io)?;
            if found != digest {
                return Err(self.damaged(file, path, &format!("sha256 {found}, expected {digest}")));
            }
        } else if file.ends_with(".json") {
            let reader = BufReader::new(File::open(path).map_err(io)?);
            let read: Result<IgnoredAny, _> = serde_json::from_reader(reader);
            read.map_err(|e| self.damaged(file, path, &format!("no JSON: {e}")))?;
        }
        Ok(())
    }

    /// Removes a damaged file, with the content that its link points to.
    fn damaged(&self, file: &str, path: &Path, why: &str) -> SourceError {
        if let Ok(stored) = fs::canonicalize(path) {
            // If these fail the next run finds the same damage and says so again.
            let _ = fs::remove_file(stored);
        }
        let _ = fs::remove_file(path);
        let (file, why) = (file.to_owned(), why.to_owned());
        SourceError::HubDamaged { repo: repo(self.model), file, why }
    }

    /// The hub says "not found" of a repository, a revision and a file alike: ask which it is.
    fn why_no_config(&self, revision: &str) -> SourceError {
        let repo = repo(self.model);
        match self.files.exists().send() {
            Err(e) => return self.error(e),
            Ok(false) => return SourceError::HubNotFound { what: repo },
            Ok(true) => {}
        }
        match self.files.revision_exists().revision(revision).send() {
            Err(e) => self.error(e),
            Ok(false) => SourceError::HubNotFound { what: format!("{repo}@{revision}") },
            Ok(true) => self.no_file(CONFIG),
        }
    }

    fn no_file(&self, file: &str) -> SourceError {
        SourceError::HubNoFile { repo: repo(self.model), file: file.to_owned() }
    }

    fn other(&self, why: &str) -> SourceError {
        SourceError::Hub { repo: repo(self.model), why: why.to_owned() }
    }

    fn error(&self, error: HFError) -> SourceError {
        let repo = repo(self.model);
        match error {
            HFError::AuthRequired { context } | HFError::Forbidden { context } => {
                SourceError::HubDenied { repo, status: context.status.as_u16() }
            }
            HFError::RepoNotFound { repo_id, .. } => SourceError::HubNotFound { what: repo_id },
            HFError::Request { source, .. } => SourceError::HubUnreachable { repo, why: root(&source) },
            HFError::Io(source) => {
                let path = self.hub_cache.clone();
                SourceError::CacheUnwritable { path, variable: "HF_HOME", source }
            }
            error => self.other(&root(&error)),
        }
    }
}

/// The innermost cause, which says what happened; the outer ones repeat the URL.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn repo(model: &HubModel) -> String {
    format!("{}/{}", model.org, model.name)
}
