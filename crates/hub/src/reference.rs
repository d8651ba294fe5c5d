//! References to models and data sets, as users write them.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::{Known, SourceError};

/// A model or data reference. Parsing looks at the file system only to see whether a bare name exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// A local file or folder, which may not exist.
    Local(PathBuf),
    /// `hf:ORG/NAME[@REV]`.
    Hub(HubModel),
    /// `pypi:PACKAGE==VERSION/PATH` or `pypi-sdist:PACKAGE==VERSION/PATH`.
    Package(Package),
    /// A short name.
    Known(&'static Known),
}

/// A model on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// The organisation or user.
    pub org: String,
    /// The model's name.
    pub name: String,
    /// Branch, tag or commit; the main branch if absent.
    pub revision: Option<String>,
}

/// A file or folder inside a package of one exact version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// The path inside the package, `/`-separated, without the top folder of a source package.
    /// `A.tar.gz!B` is the path `B` inside the archive `A.tar.gz`.
    pub path: String,
    /// Whether the file is in the source package instead of the wheel.
    pub sdist: bool,
}

impl Package {
    /// `NAME==VERSION`, as pip takes it.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }

    /// The place of its path under the cache folder `root`, once it is downloaded.
    pub fn place(&self, root: &Path) -> PathBuf {
        let kind = if self.sdist { "pypi-sdist" } else { "pypi" };
        root.join(kind).join(format!("{}-{}", self.name, self.version)).join(&self.path)
    }
}

impl FromStr for Reference {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad =
            |why: &str| SourceError::BadReference { reference: text.to_owned(), why: why.to_owned() };
        if text.is_empty() {
            return Err(bad("it is empty; give a path or a name"));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return HubModel::parse(rest)
                .map(Reference::Hub)
                .ok_or_else(|| bad("write hf:ORG/NAME or hf:ORG/NAME@REV"));
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            let package = Package::parse(rest, false);
            return package
                .map(Reference::Package)
                .ok_or_else(|| bad("write pypi:PACKAGE==VERSION/PATH"));
        }
        if let Some(rest) = text.strip_prefix("pypi-sdist:") {
            let package = Package::parse(rest, true);
            return package
                .map(Reference::Package)
                .ok_or_else(|| bad("write pypi-sdist:PACKAGE==VERSION/PATH"));
        }
        if let Some(known) = Known::find(text) {
            return Ok(Reference::Known(known));
        }
        let is_path = text.contains('/') || text.ends_with(".gguf") || text.ends_with(".safetensors");
        if is_path || Path::new(text).exists() {
            return Ok(Reference::Local(PathBuf::from(text)));
        }
        Err(SourceError::UnknownName { name: text.to_owned(), known: Known::names() })
    }
}

impl HubModel {
    fn parse(text: &str) -> Option<Self> {
        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (text, None),
        };
        let (org, name) = repo.split_once('/')?;
        // The revision also names a file in the hub's cache.
        let fine =
            is_name(org) && is_name(name) && revision.is_none_or(|r| is_inside(r) && !r.contains('!'));
        let owned = |text: &str| text.to_owned();
        fine.then(|| Self { org: owned(org), name: owned(name), revision: revision.map(owned) })
    }
}

impl Package {
    fn parse(text: &str, sdist: bool) -> Option<Self> {
        let (requirement, path) = text.split_once('/')?;
        let (name, version) = requirement.split_once("==")?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let fine = is_name(name) && is_name(version) && path.split('!').all(is_inside);
        let owned = |text: &str| text.to_owned();
        fine.then(|| Self { name: owned(name), version: owned(version), path: owned(path), sdist })
    }
}

/// Whether a name is safe as a file name and as an argument: ASCII, and starts with a letter or digit.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
}

/// Whether a relative path stays inside its folder.
pub(crate) fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && !path.contains('\\') && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Reference {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn paths() {
        for path in ["models/x", "/abs", "x.gguf", "head.safetensors", "../up", "src", "./smollm2-135m"]
        {
            assert_eq!(parsed(path), Reference::Local(path.into()));
        }
    }

    #[test]
    fn hub_models() {
        let model = |revision: Option<&str>| {
            Reference::Hub(HubModel {
                org: "O-1".into(),
                name: "N.2_b".into(),
                revision: revision.map(str::to_owned),
            })
        };
        assert_eq!(parsed("hf:O-1/N.2_b"), model(None));
        assert_eq!(parsed("hf:O-1/N.2_b@refs/pr/1"), model(Some("refs/pr/1")));
        for bad in ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:a/b@../../x", "hf:../b", "hf:a/"] {
            assert!(matches!(bad.parse::<Reference>(), Err(SourceError::BadReference { .. })), "{bad}");
        }
    }

    #[test]
    fn packages() {
        let Reference::Package(package) = parsed("pypi-sdist:Some_pkg==1.0+x/a/b.tar.gz!c/d/") else {
            panic!("no package")
        };
        assert_eq!(package.requirement(), "Some_pkg==1.0+x");
        assert_eq!(package.path, "a/b.tar.gz!c/d");
        assert_eq!(
            package.place(Path::new("/c")),
            Path::new("/c/pypi-sdist/Some_pkg-1.0+x/a/b.tar.gz!c/d")
        );
        for bad in [
            "pypi:",
            "pypi:x",
            "pypi:x==1",
            "pypi:x==1/",
            "pypi:x/y",
            "pypi:-r==1/y",
            "pypi:x==../y",
            "pypi:x==1/../y",
            "pypi:x==1//etc/passwd",
            "pypi:x==1/a!",
            "pypi:x==1/a!../b",
            "pypi:x @ url==1/y",
        ] {
            assert!(matches!(bad.parse::<Reference>(), Err(SourceError::BadReference { .. })), "{bad}");
        }
    }

    #[test]
    fn unknown_names_list_the_known() {
        let said = "smollm9".parse::<Reference>().expect_err("an error").to_string();
        assert!(said.contains("'smollm9'") && said.contains("smollm2-135m, all-minilm-l6-v2"), "{said}");
    }
}
