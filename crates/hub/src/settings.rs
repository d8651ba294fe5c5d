//! The settings: where downloads are kept, which hub is asked, and with which token.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::SourceError;

/// The settings for resolving references. [`Hub::default`] has no cache folders, so it resolves local paths
/// only; [`Hub::from_variables`] reads all settings from environment variables.
///
/// ```
/// use stackelberg_hub::Hub;
///
/// let hub = Hub { hub_cache: Some("models".into()), offline: true, ..Hub::default() };
/// let error = hub.resolve("hf:org/name", &|_| ()).unwrap_err();
/// assert!(error.to_string().contains("offline"));
/// ```
#[derive(Debug, Clone)]
pub struct Hub {
    /// The folder that files from packages are kept under. It may not exist yet.
    pub packages: Option<PathBuf>,
    /// The folder that models from the hub are kept under, in the layout of `huggingface_hub`. It may not
    /// exist yet.
    pub hub_cache: Option<PathBuf>,
    /// The address of the hub.
    pub endpoint: String,
    /// The token that is sent to the hub.
    pub token: Option<Token>,
    /// Whether the hub must not be asked at all.
    pub offline: bool,
}

/// A secret that the hub knows a user by. Its `Debug` output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token without the white space around it; `None` if nothing is left.
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        (!token.is_empty()).then(|| Self(token.to_owned()))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(...)")
    }
}

impl Default for Hub {
    fn default() -> Self {
        let endpoint = "https://huggingface.co".to_owned();
        Self { packages: None, hub_cache: None, endpoint, token: None, offline: false }
    }
}

impl Hub {
    /// The settings that environment variables describe. `variable` looks a variable up; an empty value counts
    /// as not set. Usually: `Hub::from_variables(|name| std::env::var_os(name))`.
    ///
    /// | setting | variables, in order of precedence |
    /// |---|---|
    /// | [`packages`](Self::packages) | `STACKELBERG_CACHE`; `XDG_CACHE_HOME` + `/stackelberg`; `HOME` + `/.cache/stackelberg` (macOS: `/Library/Caches/stackelberg`) |
    /// | [`hub_cache`](Self::hub_cache) | `HF_HUB_CACHE`; `HUGGINGFACE_HUB_CACHE`; `HF_HOME` + `/hub`; `XDG_CACHE_HOME` + `/huggingface/hub`; `HOME` + `/.cache/huggingface/hub` |
    /// | [`endpoint`](Self::endpoint) | `HF_ENDPOINT` |
    /// | [`token`](Self::token) | `HF_TOKEN`; `HUGGING_FACE_HUB_TOKEN`; the content of the file `HF_TOKEN_PATH`, else `token` beside the folder `hub`; none if `HF_HUB_DISABLE_IMPLICIT_TOKEN` is true |
    /// | [`offline`](Self::offline) | `HF_HUB_OFFLINE`; `TRANSFORMERS_OFFLINE` |
    ///
    /// `USERPROFILE` stands in for `HOME` on Windows. `1`, `on`, `yes` and `true` in any case are true.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        let home = home.filter(|home| home.is_absolute());
        let below_home = |folder: &str| Some(home.as_ref()?.join(folder));
        // `huggingface_hub` expands a leading `~` where the shell has not.
        let path = |name: &str| {
            let path = PathBuf::from(set(name)?);
            Some(match path.strip_prefix("~") {
                Ok(rest) => home.as_ref().map_or(path.clone(), |home| home.join(rest)),
                Err(_) => path,
            })
        };
        let text = |name: &str| set(name)?.into_string().ok();
        let is_true = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_lowercase();
            ["1", "on", "yes", "true"].contains(&value.as_str())
        };

        // The XDG specification says that relative values are ignored.
        let xdg = || set("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        let packages = set("STACKELBERG_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(xdg().or_else(|| below_home(caches))?.join("stackelberg")));

        let hf_home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| below_home(".cache/huggingface"));
        let hub_cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let from_file = || {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            // Most users have no such file.
            Token::new(&fs::read_to_string(file).ok()?)
        };
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
        let token = token.iter().find_map(|name| Token::new(&text(name)?)).or_else(from_file);
        let token = token.filter(|_| !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"));

        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| Self::default().endpoint);
        let offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
        Self { packages, hub_cache, endpoint, token, offline }
    }

    /// The absolute path of [`Self::packages`].
    pub(crate) fn package_folder(&self) -> Result<PathBuf, SourceError> {
        absolute(self.packages.as_deref(), "STACKELBERG_CACHE")
    }

    /// The absolute path of [`Self::hub_cache`].
    pub(crate) fn hub_folder(&self) -> Result<PathBuf, SourceError> {
        absolute(self.hub_cache.as_deref(), "HF_HOME")
    }
}

fn absolute(path: Option<&Path>, variable: &'static str) -> Result<PathBuf, SourceError> {
    let path = path.ok_or(SourceError::NoCache { variable })?;
    std::path::absolute(path).map_err(|source| SourceError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Hub {
        Hub::from_variables(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn nothing_set() {
        let hub = hub(&[("HF_HOME", ""), ("HF_TOKEN", " \n"), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(
            (&hub.packages, &hub.hub_cache, &hub.token, hub.offline),
            (&None, &None, &None, false)
        );
        assert_eq!(hub.endpoint, "https://huggingface.co");
        let said = hub.resolve("mt-bench", &|_| ()).expect_err("no cache").to_string();
        assert_eq!(said, "there is no folder for downloads: set STACKELBERG_CACHE to a folder");
        let said = hub.resolve("hf:a/b", &|_| ()).expect_err("no cache").to_string();
        assert_eq!(said, "there is no folder for downloads: set HF_HOME to a folder");
    }

    #[cfg(unix)]
    #[test]
    fn the_folders_by_precedence() {
        let all = [
            ("HF_HUB_CACHE", "/hub"),
            ("HF_HOME", "~/hf"),
            ("XDG_CACHE_HOME", "/xdg"),
            ("HOME", "/home/me"),
        ];
        let expected =
            ["/hub", "/home/me/hf/hub", "/xdg/huggingface/hub", "/home/me/.cache/huggingface/hub"];
        for (first, expected) in expected.iter().enumerate() {
            assert_eq!(hub(&all[first..]).hub_cache, Some(expected.into()));
        }
        assert_eq!(hub(&all).packages, Some("/xdg/stackelberg".into()));
        assert_eq!(hub(&[("STACKELBERG_CACHE", "here")]).packages, Some("here".into()));
        let relative = [("XDG_CACHE_HOME", "relative"), ("HOME", "/home/me")];
        let caches = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        assert_eq!(
            hub(&relative).packages,
            Some(Path::new("/home/me").join(caches).join("stackelberg"))
        );
    }

    #[test]
    fn the_token_and_the_switches() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("token"), "from-file\n")?;
        let home = ("HF_HOME", folder.path().to_str().unwrap_or_default());
        assert_eq!(hub(&[home]).token, Token::new("from-file"));
        assert_eq!(hub(&[home, ("HF_TOKEN", "secret ")]).token, Token::new("secret"));
        assert_eq!(hub(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "YES")]).token, None);
        let set =
            hub(&[("HF_TOKEN", "secret"), ("HF_HUB_OFFLINE", "True"), ("HF_ENDPOINT", "http://x/")]);
        assert!(set.offline && set.endpoint == "http://x/");
        assert!(!format!("{set:?}").contains("secret"), "{set:?}");
        Ok(())
    }
}
