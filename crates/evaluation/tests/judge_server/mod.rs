//! A chat endpoint in a page that misbehaves as it is told, on 127.0.0.1, and counts what it is asked.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What the server does with a request.
pub enum Act {
    /// A chat completion of this text, 100 tokens in and 10 out.
    Say(String),
    /// A status, one more header, a body.
    Status(u16, &'static str, String),
    /// Says it later.
    Slow(Duration, String),
    /// Closes before it has sent what it announced.
    CutBody,
    /// Closes at once.
    Close,
}

/// Status 200 with two scores.
pub fn say(first: impl ToString, second: impl ToString) -> Act {
    Act::Say(format!("{} {}\nThat is why.", first.to_string(), second.to_string()))
}

/// A request as it came.
#[derive(Clone)]
pub struct Request {
    /// How often the same form came before.
    pub before: usize,
    /// The body.
    pub body: Value,
    /// The head, lower case.
    pub head: String,
    /// When.
    pub at: Instant,
}

impl Request {
    pub fn form(&self) -> &str {
        self.body["messages"][0]["content"].as_str().unwrap_or_default()
    }

    /// The text between the marks of this name.
    pub fn between(&self, name: &str) -> &str {
        let rest = self.form().split(&format!("<{name} ")).nth(1).unwrap_or_default();
        let inner = rest.split_once(">\n").unwrap_or_default().1;
        inner.split(&format!("\n</{name} ")).next().unwrap_or_default()
    }

    pub fn first(&self) -> &str {
        self.between("answer-1")
    }

    pub fn second(&self) -> &str {
        self.between("answer-2")
    }
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Request>>,
    forms: Mutex<HashMap<String, usize>>,
    /// Scores and other texts sent in full, by form.
    paid: Mutex<HashMap<String, usize>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A server that stops when it is dropped.
pub struct Server {
    /// `http://127.0.0.1:PORT/v1`.
    pub url: String,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(act: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (log, stop, act) =
            (Arc::new(Log::default()), Arc::new(AtomicBool::new(false)), Arc::new(act));
        let (shared, stopped) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (log, act) = (Arc::clone(&shared), Arc::clone(&act));
                thread::spawn(move || {
                    let most = log.now.fetch_add(1, Ordering::SeqCst) + 1;
                    log.most.fetch_max(most, Ordering::SeqCst);
                    // A client that hangs up is no concern of the server.
                    let _ = serve(stream, &log, act.as_ref());
                });
            }
        });
        Self { url, log, stop, thread: Some(thread) }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.requests.lock().unwrap().clone()
    }

    /// How often each form was answered in full.
    pub fn paid(&self) -> Vec<usize> {
        self.log.paid.lock().unwrap().values().copied().collect()
    }

    /// The most requests at once.
    pub fn most(&self) -> usize {
        self.log.most.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the server, which then sees that it should stop.
        let address = self.url.trim_start_matches("http://").trim_end_matches("/v1");
        let _ = TcpStream::connect(address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut stream: TcpStream, log: &Log, act: &dyn Fn(&Request) -> Act) -> io::Result<()> {
    let request = read(&stream, log)?;
    let act = act(&request);
    if let Act::Slow(time, _) = &act {
        thread::sleep(*time);
    }
    // Before the answer goes out: the client may ask the next thing at once.
    log.now.fetch_sub(1, Ordering::SeqCst);
    let (status, header, body) = match act {
        Act::Say(text) | Act::Slow(_, text) => {
            *log.paid.lock().unwrap().entry(request.form().to_owned()).or_default() += 1;
            let body = json!({
                "model": "judge-2026", "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            });
            (200, "X-Nothing: 0", body.to_string())
        }
        Act::Status(status, header, body) => (status, header, body),
        Act::CutBody => {
            stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n{\"choices\": [")?;
            return stream.flush();
        }
        Act::Close => return Ok(()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\n{header}\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    stream.flush()
}

fn read(stream: &TcpStream, log: &Log) -> io::Result<Request> {
    let mut from = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body)?;
    let mut request = Request { before: 0, body, head, at: Instant::now() };
    let form = request.form().to_owned();
    let mut forms = log.forms.lock().unwrap();
    let count = forms.entry(form).or_default();
    request.before = *count;
    *count += 1;
    log.requests.lock().unwrap().push(request.clone());
    Ok(request)
}
