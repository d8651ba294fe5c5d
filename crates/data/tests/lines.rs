//! Paths that are not readable files.

use stackelberg_data::{read_pairs, read_rated};

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let message = read_pairs(folder.path()).unwrap_err().to_string();
    assert!(message.ends_with("it is a folder; name a file"), "{message}");
    let message = read_rated(&folder.path().join("absent")).unwrap_err().to_string();
    assert!(
        message.starts_with("cannot read ") && message.contains("absent: No such file"),
        "{message}"
    );
}
