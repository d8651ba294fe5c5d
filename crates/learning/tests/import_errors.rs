//! Errors of imports: each one names file, line and field.

use stackelberg_engine::Prompt;
use stackelberg_learning::rollouts::{Import, LayOut};

use crate::import::{RAW, parts, read, read_with};

#[test]
fn bad_input_is_named() {
    let good = r#"{"prompt_id": "a", "prompt": "w5", "response": "w6", "reward": 1}"#;
    for (text, expected) in [
        ("", "f holds no samples: is it the right file?"),
        ("3", "f:1: not a JSON object: write one {...} per sample or prompt"),
        ("{\"prompt\": \"w5\"", "f:1: malformed JSON at column 15: EOF while parsing an object"),
        (
            "{\"reward\": NaN}",
            "f:1: malformed JSON at column 12: expected value (NaN and Infinity are not JSON)",
        ),
        ("[{}", "f:1: the array breaks off: its ']' is missing"),
        ("{\"prompt\": \"w5\"}", "f:1: response: missing (or completion, output, text)"),
        ("{\"prompt\": \"w5\", \"response\": [1]}", "f:1: response: a list, expected a string"),
        ("{\"prompt\": \" \", \"response\": \"\"}", "f:1: prompt: it is empty"),
        ("{\"response\": \"\"}", "f:1: prompt: missing, and the row has no id"),
        (
            "{\"id\": 3, \"response\": \"\"}",
            "f:1: prompt: missing: give a file of prompts with the id '3'",
        ),
        ("{\"id\": 1.5, \"response\": \"\"}", "f:1: id: 1.5, expected a string or an integer"),
        (
            "{\"prompt\": \"a\", \"messages\": [], \"response\": \"\"}",
            "f:1: both 'prompt' and 'messages': keep the field with the prompt",
        ),
        (
            "{\"prompt\": \"a\", \"response\": \"\", \"output\": \"\"}",
            "f:1: both 'response' and 'output': keep the field with the response",
        ),
        (
            "{\"messages\": [{\"role\": \"user\"}], \"response\": \"\"}",
            "f:1: messages[0].content: null, expected a string",
        ),
        (
            "{\"prompt\": \"a\", \"response\": \"\", \"reward\": \"good\"}",
            "f:1: reward: a string, expected a number",
        ),
        (
            "{\"prompt\": \"a\", \"response\": \"\", \"reward\": 1e999}",
            "f:1: malformed JSON at column 47: number out of range",
        ),
        (
            "{\"prompt\": \"a\", \"response\": \"\", \"tokens\": [4, -1]}",
            "f:1: tokens[1]: -1, expected a token id",
        ),
        ("{\"prompt\": \"a\", \"responses\": []}", "f:1: responses: it is empty; remove the line"),
        ("{\"prompt\": \"a\", \"responses\": [\"\", 4]}", "f:1: responses[1]: 4, expected a string"),
        (
            "{\"prompt\": \"a\", \"responses\": [\"\"], \"rewards\": [1, 2]}",
            "f:1: rewards: 2 numbers for 1 responses in responses",
        ),
        (
            "{\"prompt\": \"a\", \"responses\": [\"\"], \"rewards\": [true]}",
            "f:1: rewards[0]: true, expected a number",
        ),
        ("{\"prompt\": \"a\", \"outputs\": [{\"token_ids\": []}]}", "f:1: outputs[0].text: missing"),
        (
            "{\"prompt\": \"a\", \"choices\": [{\"text\": \"\", \"reward\": \"-inf\"}]}",
            "f:1: choices[0].reward: -inf, expected a finite number",
        ),
        (
            "{\"custom_id\": \"x\", \"response\": null, \"error\": {\"code\": 5}}",
            "f:1: error: {\"code\":5}: the request failed; remove the line",
        ),
        (
            "{\"custom_id\": \"x\", \"response\": {\"body\": {\"error\": 1}}}",
            "f:1: response.body.choices: missing; if the request failed, remove the line",
        ),
        (
            &format!("{good}\n\n{}", good.replace("w5", "w7")),
            "f:3: prompt: differs in text or format from that of f:1, which has the same id 'a': use distinct ids",
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), expected, "{text}");
    }
    let prompts = [("a".to_owned(), Prompt::Text("w5".to_owned()))];
    let said = read_with(&prompts, "f", "{\"custom_id\": \"b\", \"choices\": [{\"text\": \"\"}]}");
    assert_eq!(said.unwrap_err(), "f:1: prompt: missing, and the file of prompts has no id 'b'");
    let said = read_with(&[], "f", "PAR1 and nothing more").unwrap_err();
    assert!(said.starts_with("f: not a whole Parquet file"), "{said}");

    let some = read(&format!("{good}\n{}", good.replace("1}", "null}"))).unwrap();
    let said = some.rewards().unwrap_err().to_string();
    assert!(said.contains("f:2: reward: missing (sample 1 of prompt 'a')"), "{said}");
    let none = read(&good.replace("1}", "null}")).unwrap();
    assert_eq!(none.rewards().unwrap(), None);

    let fails = |text: &str, context| {
        let lay_out = LayOut { context, ..RAW };
        Import::new(&read(text).unwrap(), Some(&parts().0), &lay_out).unwrap_err().to_string()
    };
    let said = fails(&format!("{good}\n{}", good.replace("w6", "w6 w6")), Some(2));
    assert!(
        said.ends_with(
            "f:2: sample 1 of prompt 'a' has 3 tokens with the prompt, more than the context of 2: remove or shorten it"
        ),
        "{said}"
    );
}
