//! Where results go: to standard output as they come, or to a file that is whole or not there at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// Standard output, or a file that takes its name only when finished.
pub enum Output {
    /// Standard output.
    Stdout(BufWriter<io::StdoutLock<'static>>),
    /// A device or a pipe, and its path: there is nothing to rename and nothing to protect.
    Stream(BufWriter<File>, PathBuf),
    /// A file.
    File(AtomicFile),
}

/// Refuses to write results over a file that is read.
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
    /// Opens `path`; `-` is standard output. An existing file stays as it is until [`Output::finish`].
    ///
    /// # Errors
    /// It cannot be written, is a folder, or is a link to nothing.
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

    /// The unfinished file, if there is one.
    pub fn temporary_path(&self) -> Option<&Path> {
        if let Self::File(file) = self { Some(file.temporary_path()) } else { None }
    }

    /// Writes out what is buffered and gives the file its name.
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
