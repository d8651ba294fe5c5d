//! The cache of one repository on disk, in the layout of `huggingface_hub`:
//!
//! | path | content |
//! |---|---|
//! | `models--ORG--NAME/blobs/ETAG` | a file's content |
//! | `models--ORG--NAME/blobs/ETAG.incomplete` | the part of it that has arrived |
//! | `models--ORG--NAME/snapshots/COMMIT/FILE` | a symbolic link to the blob, or a copy of it |
//! | `models--ORG--NAME/refs/REV` | the commit of a branch or tag |
//! | `models--ORG--NAME/.no_exist/COMMIT/FILE` | an empty file: the commit has no such file |
//! | `.locks/models--ORG--NAME/ETAG.lock` | the lock for downloading a blob |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::HubModel;
use crate::reference::is_name;

pub(super) struct Layout {
    repo: PathBuf,
    locks: PathBuf,
}

impl Layout {
    pub(super) fn new(cache: &Path, model: &HubModel) -> Self {
        let name = format!("models--{}--{}", model.org, model.name);
        Self { repo: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(etag)
    }

    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(format!("{etag}.incomplete"))
    }

    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.repo.join(".no_exist").join(commit).join(file)
    }

    /// The cached commit of a revision, if the snapshot has the file.
    pub(super) fn commit(&self, revision: &str, file: &str) -> Option<String> {
        let kept = fs::read_to_string(self.repo.join("refs").join(revision));
        let commit = kept.map_or_else(|_| revision.to_owned(), |kept| kept.trim().to_owned());
        (is_name(&commit) && self.snapshot(&commit).join(file).exists()).then_some(commit)
    }

    /// Records the commit of a branch or tag. Nothing is written if it is the recorded one, as in a cache that
    /// is shared and read-only.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.repo.join("refs").join(revision);
        if fs::read_to_string(&path).is_ok_and(|kept| kept.trim() == commit) {
            return Ok(());
        }
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, commit)
    }

    /// Whether the commit is known to lack the file.
    pub(super) fn is_absent(&self, commit: &str, file: &str) -> bool {
        self.absent(commit, file).exists()
    }

    /// Records that the commit lacks the file.
    pub(super) fn set_absent(&self, commit: &str, file: &str) -> io::Result<()> {
        let path = self.absent(commit, file);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, "")
    }

    /// Makes a blob appear as a file of a commit.
    pub(super) fn link(&self, etag: &str, commit: &str, file: &str) -> io::Result<PathBuf> {
        let path = self.snapshot(commit).join(file);
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        // From `snapshots/COMMIT/FILE` up to the repository. A link without its blob is replaced.
        let _ = fs::remove_file(&path);
        let target = "../".repeat(2 + file.matches('/').count()) + "blobs/" + etag;
        if symlink(Path::new(&target), &path).is_err() && !path.exists() {
            let copy = path.with_file_name(format!("{etag}.incomplete"));
            fs::copy(self.blob(etag), &copy)?;
            fs::rename(copy, &path)?;
        }
        Ok(path)
    }
}

#[cfg(unix)]
use std::os::unix::fs::symlink;

/// Symbolic links may need privileges on Windows; files are copied there.
#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_folders_are_linked_to_their_blobs() -> io::Result<()> {
        let cache = tempfile::tempdir()?;
        let model = HubModel { org: "o".into(), name: "n".into(), revision: None };
        let layout = Layout::new(cache.path(), &model);
        fs::create_dir_all(layout.blob(""))?;
        fs::write(layout.blob("abc"), "text")?;
        for file in ["x", "a/x", "a/b/x"] {
            let path = layout.link("abc", "c0", file)?;
            assert_eq!(path, cache.path().join("models--o--n/snapshots/c0").join(file));
            assert_eq!(fs::read_to_string(&path)?, "text");
            // A dangling link is replaced.
            fs::remove_file(&path)?;
            symlink(Path::new("nowhere"), &path)?;
            assert_eq!(fs::read_to_string(layout.link("abc", "c0", file)?)?, "text");
        }
        assert_eq!(layout.commit("main", "x"), None);
        layout.set_commit("main", "c0")?;
        layout.set_commit("refs/pr/1", "../c0")?;
        assert_eq!(layout.commit("main", "a/x"), Some("c0".to_owned()));
        assert_eq!(layout.commit("c0", "x"), Some("c0".to_owned()));
        assert_eq!((layout.commit("main", "y"), layout.commit("refs/pr/1", "x")), (None, None));
        layout.set_absent("c0", "a/y")?;
        assert!(layout.is_absent("c0", "a/y") && !layout.is_absent("c0", "y"));
        Ok(())
    }
}
