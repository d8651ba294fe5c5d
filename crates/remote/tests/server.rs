//! A local HTTP server that answers as a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// A request.
#[derive(Clone)]
pub struct Request {
    /// The request line and the headers.
    pub head: String,
    /// The body.
    pub body: Value,
}

/// Starts a server that answers each request, given its number and body, with a status and a body. Redirects lead
/// to `http://user:secret@elsewhere/score`. Returns the address and the requests received so far.
pub fn server(
    reply: impl Fn(usize, &Value) -> (u16, String) + Send + 'static,
) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read(&stream);
            let number = kept.lock().unwrap().len();
            kept.lock().unwrap().push(request.clone());
            let (status, text) = reply(number, &request.body);
            let redirect = match status {
                300..400 => "location: http://user:secret@elsewhere/score\r\n",
                _ => "",
            };
            let length = text.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{redirect}connection: close\r\n\r\n"
            );
            let _ = stream.write_all((head + &text).as_bytes());
        }
    });
    (address, seen)
}

fn read(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Request { head, body: serde_json::from_slice(&body).unwrap() }
}

/// Starts a server that answers every connection with plain text, whatever it receives. Returns its port and the
/// number of connections.
pub fn plain_text() -> (u16, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(Mutex::new(0));
    let connections = count.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            *connections.lock().unwrap() += 1;
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (port, count)
}
