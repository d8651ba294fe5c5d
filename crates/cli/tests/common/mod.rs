//! The command as a user runs it.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// `stackelberg` with these arguments.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("stackelberg"));
    command.args(args);
    command
}

/// All that it said.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
pub fn succeed(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

#[track_caller]
pub fn refused(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    said(&output).trim_end().to_owned()
}

/// What a command writes to standard output, given some input.
#[track_caller]
pub fn output(args: &[&str], input: &str) -> String {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The rewards on lines of JSON.
pub fn rewards(output: &str) -> Vec<f64> {
    let rows = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["reward"].as_f64().unwrap()).collect()
}

/// The files of a folder that have their names.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let whole = named.filter(|(name, _)| !name.ends_with(".partial"));
    whole.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

/// The same of `stackelberg rollout`.
pub mod rollout {
    use std::process::Command;

    fn of<'a>(args: &[&'a str]) -> Vec<&'a str> {
        [&["rollout"], args].concat()
    }

    pub fn command(args: &[&str]) -> Command {
        super::command(&of(args))
    }

    #[track_caller]
    pub fn succeed(args: &[&str]) -> String {
        super::succeed(&of(args))
    }

    #[track_caller]
    pub fn refused(args: &[&str]) -> String {
        super::refused(&of(args))
    }
}
