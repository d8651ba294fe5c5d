//! Where heads are written.

use std::path::Path;

use crate::error::Error;

/// Checks where a head is to be written, before the slow part begins.
///
/// # Errors
/// The name has another extension, the folder does not exist, or the path is a folder.
pub fn check_out(out: &Path) -> Result<(), Error> {
    let wrong = |problem: String| Err(Error::Out { file: out.display().to_string(), problem });
    if out.extension().is_none_or(|extension| extension != "safetensors") {
        return wrong("the file name of a head ends in .safetensors".to_owned());
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return wrong(format!("the folder {} does not exist", folder.display()));
    }
    match out.is_dir() {
        true => wrong("it is a folder; give a file".to_owned()),
        false => Ok(()),
    }
}
