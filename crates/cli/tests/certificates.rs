//! Rewards of servers whose certificates are bad, or good.
//!
//! The server speaks TLS on loopback. Its certificates were made by `certificates/make.py`; commands trust the authority
//! there by the variable SSL_CERT_FILE.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use serde_json::{Value, json};

use crate::common::{command, said};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

/// A server that presents this certificate and scores one text with 1.5: its address, and how often it was connected to.
fn server(certificate: &str) -> (String, Arc<AtomicUsize>) {
    let chain = CertificateDer::from_pem_file(format!("{FOLDER}/{certificate}.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{FOLDER}/key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![chain], key).unwrap();
    let (config, connections) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://127.0.0.1:{}/score", listener.local_addr().unwrap().port());
    let counter = connections.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut socket = socket.unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            // A client that refuses the certificate closes the connection.
            let _ = answer(&mut Stream::new(&mut connection, &mut socket));
        }
    });
    (address, connections)
}

fn answer(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    // The body is JSON, so the request ends with a brace.
    while !request.ends_with(b"}") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&part[..read]),
        }
    }
    let text = String::from_utf8_lossy(&request);
    let asked: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    let texts = asked["text_2"].as_array().map_or(1, Vec::len);
    let scores: Vec<Value> = (0..texts).map(|i| json!({"index": i, "score": 1.5})).collect();
    let body = json!({"data": scores}).to_string();
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")?;
    stream.flush()
}

/// Scores a text with the reward at this address.
fn score(address: &str) -> (Output, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    fs::write(&file, "{\"prompt\": \"why?\", \"response\": \"a\"}\n").unwrap();
    let began = Instant::now();
    let mut command = command(&["score", file.to_str().unwrap(), "--reward", address]);
    let output = command.env("SSL_CERT_FILE", format!("{FOLDER}/authority.pem")).output().unwrap();
    (output, began.elapsed())
}

#[test]
fn a_certificate_of_a_known_authority_is_accepted() {
    let (address, connections) = server("good");
    let (output, _) = score(&address);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), r#"{"reward":1.5}"#);
    // The check of the server, and the request.
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// The request fails at once, in one line that names the address and the reason, and is not repeated.
#[test]
fn bad_certificates_are_refused() {
    for (certificate, reason) in [
        ("self-signed", "UnknownIssuer"),
        ("expired", "certificate expired"),
        ("elsewhere", "certificate not valid for name \"127.0.0.1\""),
    ] {
        let (address, connections) = server(certificate);
        let (output, took) = score(&address);
        let error = said(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(output.stdout.is_empty(), "{error}");
        assert!(error.starts_with(&format!("error: {address}: ")), "{error}");
        assert!(error.contains("invalid peer certificate") && error.contains(reason), "{error}");
        assert!(!error.contains("tries") && error.trim_end().lines().count() == 1, "{error}");
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{error}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
