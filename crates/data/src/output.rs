//! Outputs: standard output, a device or pipe, or an atomic file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// Standard output, a device or pipe, or an atomic file.
pub enum Output {
    /// Standard output.
    Stdout(BufWriter<io::StdoutLock<'static>>),
    /// A device or a pipe with its path, which cannot be replaced atomically.
    Stream(BufWriter<File>, PathBuf),
    /// An atomic file.
    File(AtomicFile),
}

/// Checks that no output overwrites an input.
///
/// # Errors
/// An output is one of the inputs.
pub fn keep_inputs<'p>(
    outputs: &[&Option<PathBuf>],
    inputs: impl IntoIterator<Item = &'p PathBuf>,
) -> Result<()> {
    let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b && a.is_file(),
        _ => false,
    };
    for input in inputs {
        if let Some(output) = outputs.iter().copied().flatten().find(|output| same(output, input)) {
            let problem = "it is read as input; name another file";
            return Err(Error::write(output, io::Error::other(problem)));
        }
    }
    Ok(())
}

impl Output {
    /// Opens `path`; `-` is standard output. An existing file is unchanged until [`Output::finish`].
    ///
    /// # Errors
    /// The path cannot be written, is a folder, or is a dangling link.
    pub fn create(path: &Path) -> Result<Self> {
        if ["-", "/dev/stdout"].map(Path::new).contains(&path) {
            return Ok(Self::Stdout(BufWriter::new(io::stdout().lock())));
        }
        let special = std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
        if special {
            let stream = OpenOptions::new().write(true).open(path).map_err(|e| Error::write(path, e))?;
            return Ok(Self::Stream(BufWriter::new(stream), path.to_owned()));
        }
        AtomicFile::create(path).map(Self::File)
    }

    /// Path of the temporary file, if there is one.
    pub fn temporary_path(&self) -> Option<&Path> {
        if let Self::File(file) = self { Some(file.temporary_path()) } else { None }
    }

    /// Flushes the buffer and renames an atomic file.
    ///
    /// # Errors
    /// The disk is full, the pipe is closed, or the file cannot be renamed.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut stdout) => stdout.flush().map_err(|e| Error::write(Path::new("-"), e)),
            Self::Stream(mut stream, path) => stream.flush().map_err(|e| Error::write(&path, e)),
            Self::File(file) => file.finish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(to) => to.write(bytes),
            Self::Stream(to, _) => to.write(bytes),
            Self::File(to) => to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(to) => to.flush(),
            Self::Stream(to, _) => to.flush(),
            Self::File(to) => to.flush(),
        }
    }
}
