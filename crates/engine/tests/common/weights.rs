//! Weights that the tests download: from the cache, or from where the environment says.

use std::path::PathBuf;

use stackelberg_hub::Hub;

/// The path of a model or data set, which is downloaded if it is not in the cache.
pub fn fetch(reference: &str) -> PathBuf {
    Hub::from_variables(|name| std::env::var_os(name)).resolve(reference, &|_| ()).unwrap()
}
