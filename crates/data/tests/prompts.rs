//! Prompts: every accepted format, and every rejected line.

use std::fs;
use std::io::Write;

use serde_json::json;
use stackelberg_data::{Message, Prompt, prompts};

type Tested<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn from(name: &str, bytes: &[u8]) -> Tested<Vec<(String, Prompt)>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(name);
    fs::write(&path, bytes)?;
    // Messages contain the path; keep only the file's name.
    let prefix = format!("{}/", folder.path().display());
    prompts::read(&path).map_err(|e| e.to_string().replace(&prefix, "").into())
}

fn said(text: &str) -> String {
    from("p", text.as_bytes()).expect_err(text).to_string()
}

fn text(id: &str, words: &str) -> (String, Prompt) {
    (id.to_owned(), Prompt::Text(words.to_owned()))
}

/// A prompt without an id, whose name does not depend on its place.
fn unnamed(words: &str) -> (String, Prompt) {
    let mut alone = from("p.txt", words.as_bytes()).expect("one line");
    assert_eq!((alone.len(), alone[0].0.len()), (1, 12));
    alone.remove(0)
}

#[test]
fn repeated_prompts_are_numbered() -> Tested<()> {
    let ids: Vec<String> = from("p.txt", b"a\na\nb\na")?.into_iter().map(|(id, _)| id).collect();
    let a = unnamed("a").0;
    assert_eq!(ids, [a.clone(), format!("{a}-2"), unnamed("b").0, format!("{a}-3")]);
    Ok(())
}

#[test]
fn json_lines_arrays_and_bare_strings() -> Tested<()> {
    let lines =
        "\u{feff}{\"prompt\": \"a\", \"x\": [1]}\r\n\n{\"instruction\": \"b\", \"id\": 7}\n\"c\"";
    let expected = [unnamed("a"), text("7", "b"), unnamed("c")];
    assert_eq!(from("p.jsonl", lines.as_bytes())?, expected);
    let array = " [ {\"prompt\": \"a\"},\n {\"instruction\": \"b\",\n \"id\": 7}\n, \"c\" ]\n";
    assert_eq!(from("p.json", array.as_bytes())?, expected);
    Ok(())
}

#[test]
fn gzip_messages_and_questions() -> Tested<()> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(
        b"{\"id\":\"x\",\"messages\":[{\"role\":\"system\",\"content\":\"\"},\
          {\"role\":\"user\",\"content\":\"hi\"}]}\n\
          {\"question_id\":81,\"category\":\"writing\",\"turns\":[\"one\",\"two\"]}\n",
    )?;
    let pair = |role: &str, content: &str| Message::new(role, content);
    let messages = Prompt::Messages(vec![pair("system", ""), pair("user", "hi")]);
    let expected = [("x".to_owned(), messages), text("81", "one")];
    assert_eq!(from("p.jsonl.gz", &gz.finish()?)?, expected);
    let chosen = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more\n\nAssistant: no";
    let judged = json!({"chosen": chosen, "rejected": "\n\nHuman: hi\n\nAssistant: x"}).to_string();
    let turns = vec![pair("user", "hi"), pair("assistant", "hello"), pair("user", "more")];
    let found = from("p", judged.as_bytes())?;
    assert_eq!(found[0].1, Prompt::Messages(turns));
    let batch = "{\"custom_id\": \"r1\", \"method\": \"POST\", \"url\": \"/v1/completions\", \
                 \"body\": {\"model\": \"m\", \"prompt\": \"one\"}}";
    assert_eq!(from("p", batch.as_bytes())?, [text("r1", "one")]);
    Ok(())
}

#[test]
fn text_lines_and_folders() -> Tested<()> {
    assert_eq!(from("p.txt", b"[a\r\n\nb")?, [unnamed("[a"), unnamed("b")]);
    let folder = tempfile::tempdir()?;
    for (name, lines) in [("b.txt", "3"), ("a.txt", "1\n2\n"), ("c.md", "no")] {
        fs::write(folder.path().join(name), lines)?;
    }
    assert_eq!(prompts::read(folder.path())?, [unnamed("1"), unnamed("2"), unnamed("3")]);
    Ok(())
}

#[test]
fn errors_name_file_line_and_field() {
    for (content, expected) in [
        ("", "p: no prompts"),
        ("[]", "p: no prompts"),
        ("\n{\"prompt\": \"a\"", "p:2: malformed JSON at column 14: EOF while parsing an object"),
        ("{\"prompt\": 3}", "p:1: prompt: invalid type: integer `3`, expected a string"),
        ("{\"prompt\": \" \"}", "p:1: prompt: it is empty"),
        ("\"\"", "p:1: the prompt: it is empty"),
        ("3", "p:1: neither an object with a prompt nor a string"),
        ("{\"turns\": []}", "p:1: turns: it is empty"),
        ("{\"text\": \"a\"}", "p:1: no 'prompt', 'instruction', 'messages', 'turns' or 'chosen'"),
        (
            "{\"prompt\": \"a\", \"instruction\": \"b\"}",
            "p:1: both 'prompt' and 'instruction': keep the one to answer",
        ),
        ("{\"prompt\": \"a\"} {}", "p:1: more than one JSON value on the line: write one per line"),
        ("{\"messages\": [{\"role\": \"user\"}]}", "p:1: messages[0]: missing field `content`"),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}",
            "p:1: messages[0].content: it is empty",
        ),
        ("{\"custom_id\": 1, \"body\": {\"prompt\": \"\"}}", "p:1: body: prompt: it is empty"),
        ("{\"id\": [], \"prompt\": \"a\"}", "p:1: id: expected a string or a whole number"),
        (
            "{\"id\": 1, \"prompt\": \"a\"}\n{\"id\": 1, \"prompt\": \"b\"}",
            "p:2: id: '1' is that of p:1 too: give each prompt its own",
        ),
        ("[\n\"a\",\n{\"prompt\": 3}]", "p:3: prompt: invalid type: integer `3`, expected a string"),
        ("[\"a\"\n\"b\"]", "p:2: expected ',' or ']' after this element"),
        ("[\"a\",\n", "p:2: the array breaks off: its ']' is missing"),
        ("[\"a\"\n", "p:2: the array breaks off: its ']' is missing"),
        ("[\"a\",\n {\"prompt\":\n nan}]", "p:3: malformed JSON: expected ident"),
        ("[\"a\"]\n{}", "p:1: text after the array's ']': keep one array"),
    ] {
        assert_eq!(said(content), expected, "{content}");
    }
    let latin = from("p", b"\"a\"\n\"\xe4\"").expect_err("an error").to_string();
    assert_eq!(latin, "p:2: not UTF-8: save the file as UTF-8");
}

/// Prompts of TRL's conversational data sets, and content in parts.
#[test]
fn prompts_of_messages() {
    let lines = r#"{"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "a"}]}
{"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}]}
{"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.jsonl");
    std::fs::write(&path, lines).unwrap();
    let found = stackelberg_data::prompts::read(&path).unwrap();
    let hi = stackelberg_data::Prompt::Messages(vec![stackelberg_data::Message::new("user", "Hi")]);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|(_, prompt)| *prompt == hi), "{found:?}");
}
