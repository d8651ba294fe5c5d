//! Extracts one file or folder from a wheel (zip) or a source package (tar.gz). Names of entries are not trusted.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::Archive;
use zip::ZipArchive;

use crate::reference::is_inside;
use crate::{Package, SourceError};

/// The number of paths in the package that an error lists.
const LISTED: usize = 8;

/// Writes the package's path, a file or a folder, to `to`. After an error the caller removes what was written.
pub(super) fn extract(archive: &Path, package: &Package, to: &Path) -> Result<(), SourceError> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut search = Search { archive: name, to, seen: Vec::new() };
    let file = File::open(archive)
        .map_err(|source| SourceError::Io { path: archive.to_owned(), source })
        .map(BufReader::new)?;
    let found = if search.archive.ends_with(".tar.gz") || search.archive.ends_with(".tgz") {
        search.tar(&mut MultiGzDecoder::new(file), "", package.sdist, &package.path)?
    } else {
        search.zip(file, package.sdist, &package.path)?
    };
    if found { Ok(()) } else { Err(search.not_found(&package.path)) }
}

struct Search<'a> {
    archive: String,
    to: &'a Path,
    /// Names that were not wanted, for the error message.
    seen: Vec<String>,
}

impl Search<'_> {
    fn zip(&mut self, file: BufReader<File>, strip: bool, wanted: &str) -> Result<bool, SourceError> {
        let mut zip = ZipArchive::new(file).map_err(|e| self.bad(&e))?;
        let mut found = false;
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).map_err(|e| self.bad(&e))?;
            if entry.is_file() {
                let name = entry.name().map_err(|e| self.bad(&e))?.into_owned();
                found |= self.entry(own_name(&name, strip), "", &mut entry, wanted)?;
            }
        }
        Ok(found)
    }

    /// Searches a tar archive. `within` is the prefix of names in a nested archive, `OUTER!`.
    fn tar(
        &mut self,
        from: &mut dyn Read,
        within: &str,
        strip: bool,
        wanted: &str,
    ) -> Result<bool, SourceError> {
        let mut tar = Archive::new(from);
        let mut found = false;
        for entry in tar.entries().map_err(|e| self.bad(&e))? {
            let mut entry = entry.map_err(|e| self.bad(&e))?;
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let name = name.strip_prefix("./").unwrap_or(&name);
                found |= self.entry(own_name(name, strip), within, &mut entry, wanted)?;
            }
        }
        Ok(found)
    }

    /// Writes the entry if it is wanted, or searches it if it is an archive that holds the wanted path.
    fn entry(
        &mut self,
        name: &str,
        within: &str,
        from: &mut dyn Read,
        wanted: &str,
    ) -> Result<bool, SourceError> {
        if let Some((outer, inner)) = wanted.split_once('!')
            && name == outer
        {
            let within = format!("{within}{outer}!");
            return self.tar(&mut MultiGzDecoder::new(from), &within, false, inner);
        }
        let below = name.strip_prefix(wanted).and_then(|rest| rest.strip_prefix('/'));
        let target: PathBuf = match below {
            None if name == wanted => self.to.to_owned(),
            None => {
                self.seen.push(format!("{within}{name}"));
                return Ok(false);
            }
            Some(rest) if is_inside(rest) => self.to.join(rest),
            Some(_) => {
                let (archive, name) = (self.archive.clone(), name.to_owned());
                return Err(SourceError::UnsafePath { archive, name });
            }
        };
        let io = |source| SourceError::Io { path: target.clone(), source };
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let mut file = File::create(&target).map_err(io)?;
        copy(from, &mut file).map_err(|e| match e {
            Failed::Read(e) => self.bad(&e),
            Failed::Write(e) => io(e),
        })?;
        Ok(true)
    }

    fn bad(&self, why: &dyn std::fmt::Display) -> SourceError {
        SourceError::BadArchive { archive: self.archive.clone(), why: why.to_string() }
    }

    fn not_found(mut self, wanted: &str) -> SourceError {
        // Paths with the wanted extension come first. The package's metadata is listed only if there is
        // nothing else.
        let kind = |name: &str| Path::new(name).extension().map(|e| e.to_owned());
        let is_metadata = |name: &str| name.contains(".dist-info/") || name.contains(".egg-info/");
        if !self.seen.iter().all(|name| is_metadata(name)) {
            self.seen.retain(|name| !is_metadata(name));
        }
        self.seen.sort_by_cached_key(|name| (kind(name) != kind(wanted), name.clone()));
        self.seen.truncate(LISTED);
        let some = if self.seen.is_empty() { "nothing".to_owned() } else { self.seen.join(", ") };
        SourceError::NotInPackage { path: wanted.to_owned(), package: self.archive, some }
    }
}

/// The entry's name without the top folder that a source package has.
fn own_name(name: &str, strip: bool) -> &str {
    if strip { name.split_once('/').map_or("", |(_, rest)| rest) } else { name }
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// Like [`io::copy`], but tells a damaged archive from a full disk.
fn copy(from: &mut dyn Read, to: &mut File) -> Result<(), Failed> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer).map_err(Failed::Read)? {
            0 => return Ok(()),
            n => io::Write::write_all(to, &buffer[..n]).map_err(Failed::Write)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn package(path: &str, sdist: bool) -> Package {
        Package { name: "p".into(), version: "1".into(), path: path.into(), sdist }
    }

    fn wheel(folder: &Path, entries: &[(&str, &str)]) -> io::Result<PathBuf> {
        let path = folder.join("p-1-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path)?);
        for (name, text) in entries {
            zip.start_file(*name, zip::write::SimpleFileOptions::default())?;
            zip.write_all(text.as_bytes())?;
        }
        zip.finish()?;
        Ok(path)
    }

    fn tar_gz(entries: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            // Written as bytes, since the builder refuses unsafe names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *bytes)?;
        }
        tar.into_inner()?.finish()
    }

    #[test]
    fn a_file_and_a_folder_of_a_wheel() -> Outcome {
        let folder = tempfile::tempdir()?;
        let wheel = wheel(folder.path(), &[("a/b/x", "1"), ("a/b/c/y", "2"), ("a/bb/z", "3")])?;
        let file = folder.path().join("file");
        extract(&wheel, &package("a/b/x", false), &file)?;
        assert_eq!(fs::read_to_string(&file)?, "1");
        let tree = folder.path().join("tree");
        extract(&wheel, &package("a/b", false), &tree)?;
        assert_eq!(fs::read_to_string(tree.join("c/y"))?, "2");
        assert!(!tree.join("z").exists());
        Ok(())
    }

    #[test]
    fn a_missing_path_lists_some_that_are_there() -> Outcome {
        let folder = tempfile::tempdir()?;
        let wheel =
            wheel(folder.path(), &[("p-1.dist-info/METADATA", ""), ("a/x.py", ""), ("a/y.json", "")])?;
        let error = extract(&wheel, &package("a/z.json", false), &folder.path().join("to"))
            .expect_err("an error");
        let expected = "p-1-py3-none-any.whl does not contain a/z.json; \
                        it contains a/y.json, a/x.py";
        assert_eq!(error.to_string(), expected);
        Ok(())
    }

    #[test]
    fn no_name_leads_out_of_the_folder() -> Outcome {
        let folder = tempfile::tempdir()?;
        for evil in ["a/../../evil", "a//etc/evil", "a/b\\..\\evil"] {
            let to = folder.path().join("deep/er");
            let wheel = wheel(folder.path(), &[(evil, "x")])?;
            let error = extract(&wheel, &package("a", false), &to).expect_err("an error");
            assert!(matches!(error, SourceError::UnsafePath { .. }), "{evil}: {error}");
            let path = folder.path().join("p-1.tar.gz");
            fs::write(&path, tar_gz(&[(&format!("p-1/{evil}"), b"x")])?)?;
            let error = extract(&path, &package("a", true), &to).expect_err("an error");
            assert!(matches!(error, SourceError::UnsafePath { .. }), "{evil}: {error}");
        }
        assert!(!folder.path().join("evil").exists());
        Ok(())
    }

    #[test]
    fn source_packages_and_archives_inside_them() -> Outcome {
        let folder = tempfile::tempdir()?;
        let inner = tar_gz(&[("in/x.txt", b"deep"), ("in/y.txt", b"")])?;
        let path = folder.path().join("p-1.tar.gz");
        fs::write(&path, tar_gz(&[("p-1/top.txt", b"top"), ("p-1/r/n.tar.gz", &inner)])?)?;
        let to = folder.path().join("to");
        extract(&path, &package("top.txt", true), &to)?;
        assert_eq!(fs::read_to_string(&to)?, "top");
        extract(&path, &package("r/n.tar.gz!in/x.txt", true), &to)?;
        assert_eq!(fs::read_to_string(&to)?, "deep");
        let error = extract(&path, &package("r/n.tar.gz!in/z.txt", true), &to).expect_err("an error");
        assert!(error.to_string().contains("r/n.tar.gz!in/x.txt"), "{error}");
        Ok(())
    }

    #[test]
    fn a_broken_archive_is_named() -> Outcome {
        let folder = tempfile::tempdir()?;
        for name in ["p-1-py3-none-any.whl", "p-1.tar.gz"] {
            let path = folder.path().join(name);
            fs::write(&path, "no archive")?;
            let error =
                extract(&path, &package("a", false), &folder.path().join("to")).expect_err("an error");
            assert!(error.to_string().starts_with(&format!("{name} cannot be unpacked")), "{error}");
        }
        Ok(())
    }
}
