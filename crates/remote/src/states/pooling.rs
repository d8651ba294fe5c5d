//! Requests to `/pooling`, and the hidden states in the responses.
//!
//! | task | `data[0].data` |
//! |---|---|
//! | `token_embed` | the states of all tokens, `[tokens, d]` |
//! | `embed` | the state of the last token, `[1, d]` |
//!
//! Both are base64 of little-endian f32.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Bytes of a number.
const BYTES: usize = size_of::<f32>();

/// What a server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The states of all tokens.
    All,
    /// The state of the last token.
    Last,
}

impl Task {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "token_embed",
            Self::Last => "embed",
        }
    }

    /// The rows that a response for so many tokens has.
    fn rows(self, tokens: usize) -> usize {
        match self {
            Self::All => tokens,
            Self::Last => 1,
        }
    }

    /// The longest text, in tokens, whose states of this width fit a response of so many bytes.
    pub(super) fn longest(self, width: usize, bytes: usize) -> usize {
        match self {
            // Four letters stand for three bytes.
            Self::All => (bytes - 4096) / 4 * 3 / (BYTES * width),
            Self::Last => usize::MAX,
        }
    }
}

/// The request for the states of a text.
pub(super) fn body(model: &str, task: Task, tokens: &[u32]) -> Value {
    json!({
        "model": model,
        "input": tokens,
        "task": task.name(),
        // States as they are: they would be normalised.
        "use_activation": false,
        "encoding_format": "base64",
    })
}

/// The states of a response to a request for `tokens` tokens, `[rows, d]` row by row. Without a width, it is what the
/// response has.
///
/// # Errors
/// A sentence says what is wrong with the response.
pub(super) fn read(
    response: &Value,
    task: Task,
    tokens: usize,
    width: Option<usize>,
) -> Result<Vec<f32>, String> {
    let data = response["data"][0]["data"].as_str();
    let data = data.ok_or("the response has no hidden states as base64 in data[0].data")?;
    let bytes =
        STANDARD.decode(data).map_err(|error| format!("the response has broken base64: {error}"))?;
    let rows = task.rows(tokens);
    let row = width.map_or(bytes.len() / rows, |width| width * BYTES);
    if row == 0 || !row.is_multiple_of(BYTES) || bytes.len() != rows * row {
        let of = width.map_or_else(String::new, |width| format!(" of width {width}"));
        return Err(format!(
            "the response has {} bytes where the hidden states{of} of {rows} tokens are asked for",
            bytes.len()
        ));
    }
    let states: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    match states.iter().find(|state| !state.is_finite()) {
        Some(state) => {
            Err(format!("the response has {state} in a hidden state: the model is numerically broken"))
        }
        None => Ok(states),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(states: &[f32]) -> Value {
        let bytes: Vec<u8> = states.iter().flat_map(|state| state.to_le_bytes()).collect();
        json!({"data": [{"index": 0, "data": STANDARD.encode(bytes)}]})
    }

    /// Seven tokens of SmolLM2-135M-Instruct (width 576, bf16), of which the first two rows are kept.
    #[test]
    fn states_of_vllm_are_read() {
        let line = include_str!("recorded.jsonl").lines().next().unwrap();
        let recorded: Value = serde_json::from_str(line).unwrap();
        assert_eq!(recorded["request"], body("smollm2", Task::All, &[504, 3575]));
        let states = read(&recorded["response"], Task::All, 2, None).unwrap();
        assert_eq!(states.len(), 2 * 576);
        assert_eq!(states[..3], [-0.59765625, -0.859375, -0.038_085_938]);
        assert_eq!(states[576..578], [-1.5234375, -0.330_078_13]);
        assert_eq!(read(&recorded["response"], Task::All, 2, Some(576)).unwrap(), states);
        let problem = read(&recorded["response"], Task::All, 3, Some(576)).unwrap_err();
        assert!(
            problem.contains("4608 bytes where the hidden states of width 576 of 3 tokens"),
            "{problem}"
        );
    }

    #[test]
    fn broken_states_are_refused() {
        for (response, problem) in [
            (json!({"data": [{"data": [[1.0]]}]}), "no hidden states as base64"),
            (json!({"data": [{"data": "!"}]}), "broken base64"),
            (response(&[1.0, 2.0, 3.0]), "12 bytes"),
            (response(&[]), "0 bytes"),
            (response(&[1.0, f32::NAN]), "NaN"),
        ] {
            let said = read(&response, Task::All, 2, None).unwrap_err();
            assert!(said.contains(problem), "{said} lacks {problem}");
        }
        assert_eq!(read(&response(&[1.0, 2.0]), Task::Last, 9, Some(2)).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn the_longest_text_fits_the_response() {
        let longest = Task::All.longest(4096, 64 << 20);
        assert!((3000..3100).contains(&longest), "{longest}");
        assert!(longest * 4096 * 4 * 4 / 3 < (64 << 20) - 4000);
    }
}
