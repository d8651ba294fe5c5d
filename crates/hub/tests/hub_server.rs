//! A small model hub on 127.0.0.1. It serves one repository under every name and records what it is asked.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The SHA-256 of `weights`.
pub const WEIGHTS_SHA256: &str = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c";

/// How the server answers. The revision `nosuch` does not exist.
#[derive(Clone)]
pub struct Answers {
    /// Any other status than 200 is the answer to every request.
    pub status: u16,
    /// The `X-Error-Code` that goes with such a status.
    pub code: &'static str,
    /// The first requests, which are answered with status 503.
    pub busy: usize,
    /// The commit of every revision.
    pub commit: &'static str,
    /// Names and contents. Weights have their SHA-256 as etag, as large files have on the hub. A content that
    /// begins with `GARBLE ` is sent changed; of one that begins with `CUT ` only the first half is sent.
    pub files: Vec<(String, String)>,
    /// Weights are redirected to this server, with the same path.
    pub elsewhere: Option<String>,
    /// Whether parts of files can be asked for, and whether a redirect says how large its file is.
    pub ranges: bool,
}

impl Answers {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        let (code, elsewhere) = ("", None);
        Self { status: 200, code, busy: 0, commit: COMMIT, files, elsewhere, ranges: true }
    }
}

/// A request: its first line and its headers in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim)
    }
}

/// A server that stops when it is dropped.
pub struct HubServer {
    /// `http://127.0.0.1:PORT`.
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HubServer {
    /// Serves these files, or answers every request with a status other than 200.
    pub fn start(status: u16, files: &[(&str, &str)]) -> io::Result<Self> {
        let code = if status == 404 { "RepoNotFound" } else { "" };
        Self::with(Answers { status, code, ..Answers::new(files) })
    }

    pub fn with(answers: Answers) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (requests, stopped) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // A client that hangs up does not stop the server.
                let _ = serve(stream, &answers, &requests);
            }
        });
        Ok(Self { address, log, stop, thread: Some(thread) })
    }

    /// The requests so far.
    pub fn log(&self) -> Vec<Request> {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.log().len()
    }

    /// The number of downloads so far of a file with this name.
    pub fn downloads(&self, file: &str) -> usize {
        self.log().iter().filter(|r| r.method == "GET" && r.path.ends_with(file)).count()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the server, which then sees that it should stop.
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Reads one request and answers it; then the connection closes.
fn serve(mut stream: TcpStream, answers: &Answers, log: &Mutex<Vec<Request>>) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut headers = Vec::new();
    for line in lines {
        match line? {
            end if end.is_empty() => break,
            line => headers.push(line.to_ascii_lowercase()),
        }
    }
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let request = Request { method, path, headers };
    let number = log.lock().map_or(0, |mut log| {
        log.push(request.clone());
        log.len()
    });
    let (head, body) = if number <= answers.busy {
        ("503 Busy\r\n".to_owned(), String::new())
    } else {
        answer(&request, answers)
    };
    write!(stream, "HTTP/1.1 {head}Connection: close\r\n\r\n")?;
    if request.method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// The status with the headers, each with its line end, and the body.
fn answer(request: &Request, answers: &Answers) -> (String, String) {
    let Answers { status, code, commit, .. } = answers;
    let error = |status: u16, code: &str, more: &str| {
        (format!("{status} X\r\nX-Error-Code: {code}\r\n{more}Content-Length: 0\r\n"), String::new())
    };
    if *status != 200 {
        return error(*status, code, "");
    }
    let commit = format!("X-Repo-Commit: {commit}\r\n");
    let path = request.path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/'));
    let Some((revision, name)) = path else { return error(404, "RepoNotFound", "") };
    if revision == "nosuch" {
        return error(404, "RevisionNotFound", "");
    }
    let Some((name, text)) = answers.files.iter().find(|(file, _)| file == name) else {
        return error(404, "EntryNotFound", &commit);
    };
    let honest = text.strip_prefix("GARBLE ").or(text.strip_prefix("CUT ")).unwrap_or(text);
    let etag = if honest == "weights" { WEIGHTS_SHA256 } else { name.as_str() };
    let about = format!("{commit}X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n", honest.len());
    let is_large = name.ends_with(".safetensors");
    if let Some(elsewhere) = answers.elsewhere.as_ref().filter(|_| is_large) {
        // Without the size there is only the length of the redirect's own text.
        let about = if answers.ranges { about } else { about.replace("X-Linked-Size", "X-Size") };
        let head = format!("302 X\r\nLocation: {elsewhere}{}\r\n{about}", request.path);
        return (head + "Content-Length: 5\r\n", "moved".to_owned());
    }
    let body = if text.starts_with("GARBLE ") { honest.to_uppercase() } else { honest.to_owned() };
    if text.starts_with("CUT ") {
        let head = format!("200 X\r\n{about}Content-Length: {}\r\n", body.len());
        return (head, body[..body.len() / 2].to_owned());
    }
    let from = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    match from.and_then(|from| from.parse::<usize>().ok()).filter(|_| answers.ranges) {
        Some(from) => {
            let (rest, last, size) = (&body[from..], body.len() - 1, body.len());
            let range = format!("Content-Range: bytes {from}-{last}/{size}\r\n");
            let head = format!("206 X\r\n{about}{range}Content-Length: {}\r\n", rest.len());
            (head, rest.to_owned())
        }
        None => (format!("200 X\r\n{about}Content-Length: {}\r\n", body.len()), body),
    }
}
