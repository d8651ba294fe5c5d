//! `stackelberg serve` as an operator runs it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::common::{command, refused};
use crate::tiny::Tiny;

/// A server on a free port, and its address.
pub fn start(args: &[&str], key: Option<&str>) -> (Child, String, BufReader<std::process::ChildStderr>) {
    let mut command = command(&[&["serve", "--port", "0", "--dtype", "f32"], args].concat());
    command.env_remove("STACKELBERG_API_KEY").stderr(Stdio::piped());
    if let Some(key) = key {
        command.env("STACKELBERG_API_KEY", key);
    }
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}"));
    (child, address.to_owned(), stderr)
}

/// Status and body of an answer.
pub fn ask(address: &str, path: &str, key: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(Value::to_string);
    let (method, text) = (if body.is_some() { "POST" } else { "GET" }, body.unwrap_or_default());
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[test]
fn a_server_answers_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    Tiny::default().write(at("policy").as_ref());
    Tiny { seed: 5, labels: Some(1), ..Tiny::default() }.write(at("reward").as_ref());
    let (model, reward) = (at("policy"), format!("kind={}", at("reward")));
    let args = ["--model", &model, "--reward", &reward, "--default-guidance", r#"{"reward": "kind"}"#];
    let (mut child, address, mut stderr) = start(&args, Some("secret"));
    assert_eq!(ask(&address, "/v1/models", "wrong", None).0, 401);
    let (status, models) = ask(&address, "/v1/models", "secret", None);
    // The name of a folder is no path.
    assert_eq!(
        (status, &models["data"][0]["id"], &models["rewards"]),
        (200, &json!("policy"), &json!(["kind"]))
    );
    let body = json!({"model": "policy", "prompt": "w1 w2", "max_tokens": 3, "seed": 1});
    let (status, answer) = ask(&address, "/v1/completions", "secret", Some(&body));
    assert_eq!((status, &answer["choices"][0]["guidance"]["method"]), (200, &json!("args")), "{answer}");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");

    // The address is taken: one line, and no server.
    let keys = at("keys");
    fs::write(&keys, "one\ntwo\n").unwrap();
    let (mut child, address, _stderr) =
        start(&["--model", &model, "--reward", &reward, "--api-key-file", &keys], None);
    assert_eq!(ask(&address, "/v1/models", "two", None).0, 200);
    assert_eq!(ask(&address, "/v1/models", "secret", None).0, 401);
    let port = address.rsplit(':').next().unwrap();
    let taken = refused(&["serve", "--model", &model, "--reward", &reward, "--port", port]);
    assert!(taken.starts_with("error: cannot listen on 127.0.0.1:"), "{taken}");
    child.kill().unwrap();
    child.wait().unwrap();
    let wrong = refused(&[
        "serve",
        "--model",
        &model,
        "--reward",
        &reward,
        "--default-guidance",
        r#"{"reward": "x"}"#,
    ]);
    assert!(wrong.contains("default guidance: reward: unknown reward \"x\"; known are kind"), "{wrong}");
}

#[test]
fn an_address_that_others_reach_needs_a_key() {
    let said = refused(&["serve", "--host", "0.0.0.0"]);
    assert!(said.contains("--host 0.0.0.0: others can reach this address"), "{said}");
    for (args, message) in [
        (&["--reward", "=x"][..], "write NAME=REF"),
        (&["--default-guidance", "{"], "--default-guidance is not JSON"),
        (&["--api-key", " "], "the API key is empty"),
        (&["--api-key", "ключ"], "--api-key: an API key must have printable ASCII characters only"),
        (&["--api-key-file", "nowhere"], "cannot read nowhere"),
        (&["--no-auth", "--api-key", "secret"], "--no-auth: there is a key"),
        (&["--limits", "[1, 2]"], "--limits: invalid type: sequence, expected a JSON object"),
        (&["--queue", "x"], "--queue"),
    ] {
        let said = refused(&[&["serve"], args].concat());
        assert!(said.contains(message), "{said}");
    }
}

/// A variable that is set is meant to be a key.
#[cfg(unix)]
#[test]
fn a_key_that_no_client_can_send_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let broken = std::ffi::OsStr::from_bytes(b"\xff\xfesecret");
    for key in [broken, "".as_ref(), "  ".as_ref(), "two\nlines".as_ref()] {
        let output = command(&["serve"]).env("STACKELBERG_API_KEY", key).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("STACKELBERG_API_KEY: "), "{said}");
    }
}

#[test]
fn a_port_that_is_taken_is_noticed_before_the_model_is_loaded() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = refused(&["serve", "--port", &port, "--model", "nowhere"]);
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
}
