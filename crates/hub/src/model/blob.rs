//! Downloads the content of one file into the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde::de::IgnoredAny;
use stackelberg_data::hash::sha256_file;

use super::client::{About, Client, Trouble, header, retry};
use super::layout::Layout;
use crate::{Progress, SourceError, folder};

/// The time between two reports of progress.
const TICK: Duration = Duration::from_millis(100);

/// A file of the repository that is to be downloaded.
pub(super) struct Blob<'a> {
    pub(super) client: &'a Client,
    pub(super) layout: &'a Layout,
    /// `ORG/NAME`.
    pub(super) repo: &'a str,
    pub(super) file: &'a str,
    pub(super) about: &'a About,
    pub(super) progress: &'a dyn Fn(Progress),
}

impl Blob<'_> {
    /// Downloads the blob unless it is there; only one process at a time does.
    pub(super) fn bring(&self) -> Result<(), Trouble> {
        let etag = &self.about.etag;
        let (blob, partial, lock) =
            (self.layout.blob(etag), self.layout.partial(etag), self.layout.lock(etag));
        if blob.exists() {
            return Ok(());
        }
        for path in [&blob, &lock] {
            let parent = path.parent().unwrap_or(path);
            fs::create_dir_all(parent).map_err(|e| unwritable(parent, e))?;
        }
        let _lock =
            folder::lock(&lock, &self.what(), folder::HUB, self.progress).map_err(Trouble::Source)?;
        if blob.exists() {
            return Ok(());
        }
        let resumed = partial.exists();
        retry(|| self.fill(&partial))?;
        match self.check(&partial) {
            // The part that was there before may have been damaged.
            Err(Trouble::Source(SourceError::HubDamaged { .. })) if resumed => {
                retry(|| self.fill(&partial))?;
                self.check(&partial)?;
            }
            checked => checked?,
        }
        fs::rename(&partial, &blob).map_err(|e| unwritable(&blob, e))
    }

    /// Completes the partial file.
    fn fill(&self, partial: &PathBuf) -> Result<(), Trouble> {
        let io = |e| unwritable(partial, e);
        let mut out = OpenOptions::new().append(true).create(true).open(partial).map_err(io)?;
        let mut done = out.metadata().map_err(io)?.len();
        let total = self.about.size;
        if total.is_none_or(|total| done > total) {
            done = 0;
        }
        self.report(done);
        if total != Some(done) {
            let mut response = match self.client.content(self.file, &self.about.commit, done) {
                // For example 416: the server cannot continue there.
                Err(Trouble::Other(_)) if done > 0 => {
                    out.set_len(0).map_err(io)?;
                    return self.fill(partial);
                }
                response => response?,
            };
            let range = header(&response, "content-range").unwrap_or_default();
            let continues = response.status() == StatusCode::PARTIAL_CONTENT
                && range.starts_with(&format!("bytes {done}-"));
            if !continues {
                done = 0;
            }
            out.set_len(done).map_err(io)?;
            self.copy(&mut response, &mut out, partial, &mut done)?;
        }
        match total {
            Some(total) if total != done => {
                Err(Trouble::Failing(format!("{done} of {total} bytes of {} arrived", self.file)))
            }
            _ => out.sync_all().map_err(io),
        }
    }

    /// Copies the response to the end of the file and counts the bytes.
    fn copy(
        &self,
        response: &mut dyn Read,
        out: &mut File,
        partial: &Path,
        done: &mut u64,
    ) -> Result<(), Trouble> {
        let most = self.about.size.unwrap_or(u64::MAX);
        let mut buffer = vec![0; 1 << 17];
        let mut reported = Instant::now();
        while *done <= most {
            let n = match response.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => {
                    let why = stackelberg_http::root_cause(&e);
                    return Err(Trouble::Failing(format!("after {done} bytes of {}: {why}", self.file)));
                }
            };
            out.write_all(&buffer[..n]).map_err(|e| unwritable(partial, e))?;
            *done += n as u64;
            if reported.elapsed() >= TICK {
                self.report(*done);
                reported = Instant::now();
            }
        }
        self.report(*done);
        Ok(())
    }

    /// Checks a large file's SHA-256, which is its etag, and that a small JSON file is JSON. A damaged file is
    /// removed.
    fn check(&self, path: &Path) -> Result<(), Trouble> {
        let io = |source| Trouble::Source(SourceError::Io { path: path.to_owned(), source });
        let etag = &self.about.etag;
        let why = if etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()) {
            (self.progress)(Progress::Verifying { what: self.what() });
            let found = sha256_file(path).map_err(io)?;
            (found != *etag).then(|| format!("sha256 {found}, expected {etag}"))
        } else if self.file.ends_with(".json") {
            let reader = BufReader::new(File::open(path).map_err(io)?);
            let read: Result<IgnoredAny, _> = serde_json::from_reader(reader);
            read.err().map(|e| format!("no JSON: {e}"))
        } else {
            None
        };
        let Some(why) = why else { return Ok(()) };
        fs::remove_file(path).map_err(|e| unwritable(path, e))?;
        let (repo, file) = (self.repo.to_owned(), self.file.to_owned());
        Err(Trouble::Source(SourceError::HubDamaged { repo, file, why }))
    }

    fn report(&self, done: u64) {
        (self.progress)(Progress::Downloading { what: self.what(), done, total: self.about.size });
    }

    fn what(&self) -> String {
        format!("{}/{}", self.repo, self.file)
    }
}

pub(super) fn unwritable(path: &Path, source: std::io::Error) -> Trouble {
    let (path, variable) = (path.to_owned(), folder::HUB);
    Trouble::Source(SourceError::CacheUnwritable { path, variable, source })
}
