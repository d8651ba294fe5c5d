//! A model hub in a page: answers what the hub's client asks for one repository, `org/*`, on 127.0.0.1.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A server that stops when it is dropped.
pub struct Hub {
    /// `http://127.0.0.1:PORT`.
    pub address: String,
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    /// Serves these files. Any other status than 200 is the answer to everything. Weights have their
    /// sha256 as ETag, as large files have on the hub; a content that begins with `GARBLE ` is sent
    /// changed, of one that begins with `CUT ` less than announced. No revision is called `nosuch`.
    pub fn start(status: u16, files: &[(&str, &str)]) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let files: Vec<_> =
            files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        let (requests, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                // A client that hangs up is no concern of the server.
                let _ = answer(stream, status, &files);
            }
        });
        Ok(Self { address, requests, stop, thread: Some(thread) })
    }

    /// How many requests have come so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the server, which then sees that it should stop.
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One request, one answer, then the connection closes.
fn answer(mut stream: TcpStream, status: u16, files: &[(String, String)]) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut cached = false;
    for line in lines {
        let line = line?;
        cached |= line.to_ascii_lowercase().starts_with("if-none-match:");
        if line.is_empty() {
            break;
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let name =
        path.split("/resolve/").nth(1).and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
    let file = files.iter().find(|(file, _)| Some(file.as_str()) == name);
    let file = file.filter(|_| !path.contains("nosuch"));
    let is_api = !path.contains("nosuch") && path.starts_with("/api/models/org/");
    let (status, etag, body) = match (status, file) {
        (200, Some((name, text))) if name.ends_with(".safetensors") => {
            let honest = text.strip_prefix("GARBLE ").or(text.strip_prefix("CUT ")).unwrap_or(text);
            let etag = if honest == "weights" { WEIGHTS_SHA256 } else { name };
            let body =
                if text.starts_with("GARBLE ") { honest.to_uppercase() } else { honest.to_owned() };
            (200, etag, body)
        }
        (200, Some((name, text))) => (if cached { 304 } else { 200 }, name.as_str(), text.clone()),
        (200, None) if is_api => (200, "", format!("{{\"id\": \"org/tiny\", \"sha\": \"{COMMIT}\"}}")),
        (200, None) => (404, "", String::new()),
        (status, _) => (status, "", String::new()),
    };
    write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nX-Repo-Commit: {COMMIT}\r\n")?;
    write!(stream, "ETag: \"{etag}\"\r\nContent-Length: {}\r\n\r\n", body.len())?;
    if method != "HEAD" && status != 304 {
        let cut = file.is_some_and(|(_, text)| text.starts_with("CUT "));
        let body = if cut { &body[..body.len() / 2] } else { &body };
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// That of `weights`.
const WEIGHTS_SHA256: &str = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c";
