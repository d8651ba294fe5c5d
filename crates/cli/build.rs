//! Tells the program which commit it was built from, where there is a repository to ask.

use std::process::Command;

fn main() {
    let asked = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = match asked {
        Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    };
    println!("cargo::rustc-env=STACKELBERG_COMMIT={commit}");
    for file in ["HEAD", "logs/HEAD"] {
        let asked = Command::new("git").args(["rev-parse", "--git-path", file]).output();
        if let Some(path) = asked.ok().filter(|said| said.status.success()) {
            println!("cargo::rerun-if-changed={}", String::from_utf8_lossy(&path.stdout).trim());
        }
    }
}
