//! Where results go: to the terminal as they come, or to a file that is whole or not there at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

/// The unfinished file, for Ctrl-C to remove.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Standard output, or a file that takes its name only when finished.
pub(crate) enum Output {
    Stdout(BufWriter<io::StdoutLock<'static>>),
    /// A device or a pipe: nothing to rename, nothing to protect.
    Stream(BufWriter<File>),
    File {
        unfinished: BufWriter<NamedTempFile>,
        path: PathBuf,
    },
}

/// Refuses to write results over a file that is read.
pub(crate) fn keep_inputs<'p>(
    outputs: &[&Option<PathBuf>],
    inputs: impl IntoIterator<Item = &'p PathBuf>,
) -> Result<()> {
    let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b && a.is_file(),
        _ => false,
    };
    for input in inputs {
        if let Some(output) = outputs.iter().copied().flatten().find(|output| same(output, input)) {
            bail!("cannot write {}: it is read as input; name another file", output.display());
        }
    }
    Ok(())
}

impl Output {
    /// Opens `path`, or standard output for `None`, and lets Ctrl-C remove what is unfinished. Call once
    /// in a process.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let output = Self::create(path.unwrap_or(Path::new("-")))?;
        if let Self::File { unfinished, .. } = &output {
            remember(Some(unfinished.get_ref().path().to_owned()));
            ctrlc::set_handler(|| {
                if let Some(path) = UNFINISHED.lock().ok().and_then(|mut path| path.take()) {
                    let _ = std::fs::remove_file(path);
                }
                std::process::exit(130);
            })
            .context("cannot watch for Ctrl-C")?;
        }
        Ok(output)
    }

    /// Opens `path`; `-` is standard output. An existing file stays as it is until [`Output::finish`].
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if ["-", "/dev/stdout"].map(Path::new).contains(&path) {
            return Ok(Self::Stdout(BufWriter::new(io::stdout().lock())));
        }
        let cannot = || format!("cannot write {}", path.display());
        let existing = std::fs::metadata(path).ok();
        if existing.as_ref().is_some_and(|there| there.is_dir()) {
            bail!("{}: it is a folder; name a file", cannot());
        }
        if existing.as_ref().is_some_and(|there| !there.is_file()) {
            let stream = OpenOptions::new().write(true).open(path).with_context(cannot)?;
            return Ok(Self::Stream(BufWriter::new(stream)));
        }
        if existing.is_none() && path.is_symlink() {
            bail!("{}: it is a link to nothing", cannot());
        }
        // A link stays a link: what it points to is replaced.
        let path =
            if existing.is_some() { path.canonicalize().with_context(cannot)? } else { path.to_owned() };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".stackelberg-").suffix(".partial");
        #[cfg(unix)]
        builder.permissions(existing.map_or_else(
            || std::os::unix::fs::PermissionsExt::from_mode(0o666),
            |there| there.permissions(),
        ));
        let unfinished = builder.tempfile_in(folder).with_context(cannot)?;
        Ok(Self::File { unfinished: BufWriter::with_capacity(1 << 16, unfinished), path })
    }

    /// Writes out what is buffered and gives the file its name.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut stdout) => stdout.flush().context("cannot write to standard output"),
            Self::Stream(mut stream) => stream.flush().context("cannot write the output"),
            Self::File { unfinished, path } => {
                let cannot = || format!("cannot write {}", path.display());
                let file = unfinished.into_inner().map_err(|e| e.into_error()).with_context(cannot)?;
                file.as_file().sync_all().with_context(cannot)?;
                file.persist(&path).map_err(|e| e.error).with_context(cannot)?;
                remember(None);
                Ok(())
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(to) => to.write(bytes),
            Self::Stream(to) => to.write(bytes),
            Self::File { unfinished: to, .. } => to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(to) => to.flush(),
            Self::Stream(to) => to.flush(),
            Self::File { unfinished: to, .. } => to.flush(),
        }
    }
}

fn remember(path: Option<PathBuf>) {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        *unfinished = path;
    }
}
