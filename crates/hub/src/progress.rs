//! What a caller is told during a download.

/// Progress while a reference is resolved. `what` is a file or package, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Bytes are being downloaded.
    Downloading {
        /// The file or package.
        what: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in total, where known (pip does not report it).
        total: Option<u64>,
    },
    /// Another process downloads the same thing; this one waits for it.
    Waiting {
        /// The file or package.
        what: String,
    },
    /// The wanted path is being extracted from its package.
    Unpacking {
        /// The package's file.
        what: String,
    },
    /// The content is being hashed.
    Verifying {
        /// The file or folder.
        what: String,
    },
}
