//! What servers answer: tokens and their log-probabilities, in the shapes of vLLM and of llama-server.
//!
//! | server | one of `choices` |
//! |---|---|
//! | vLLM, `stackelberg serve` | `token_ids: [7]`, `logprobs: {token_logprobs: [-0.3], top_logprobs: [{"token_id:7": -0.3}]}` |
//! | llama-server | `logprobs: {content: [{id: 7, logprob: -0.3, top_logprobs: [{id: 7, logprob: -0.3}]}]}` |

use serde_json::Value;
use stackelberg_decoding::policy::{Call, Drawn, Found, Likeliest, Wanted};

/// What a response says to a call, in the order of its choices' indices.
///
/// # Errors
/// A sentence says what is missing or malformed.
pub(super) fn found(response: &Value, call: &Call) -> Result<Vec<Found>, String> {
    choices(response, call.wanted.n())?.into_iter().map(|choice| of_choice(choice, call)).collect()
}

/// The choices of a response: so many, in the order of their indices.
fn choices(response: &Value, n: usize) -> Result<Vec<&Value>, String> {
    let all = response["choices"].as_array().map_or(&[][..], Vec::as_slice);
    if all.len() != n {
        return Err(match all.len() {
            0 => "the response has no choices".to_owned(),
            found => format!("the response has {found} choices where {n} are asked for"),
        });
    }
    if let [only] = all {
        return Ok(vec![only]);
    }
    let of_index =
        |index: usize| all.iter().find(|choice| choice["index"].as_u64() == Some(index as u64));
    let found = |index| {
        of_index(index).ok_or_else(|| format!("the response has no choice with the index {index}"))
    };
    (0..n).map(found).collect()
}

fn of_choice(choice: &Value, call: &Call) -> Result<Found, String> {
    let tokens = tokens(choice)?;
    match &call.wanted {
        Wanted::Likeliest { k } => {
            let first = tokens.into_iter().next().ok_or("the response has no token")?;
            let Likeliest(likeliest) = &first.likeliest;
            // All of a small vocabulary may be fewer.
            match likeliest.len() {
                0 => Err("the response has no log-probabilities".to_owned()),
                n if n < *k && n < 2 => {
                    Err(format!("the response has {n} log-probabilities where {k} are asked for"))
                }
                _ => Ok(Found::Likeliest(first.likeliest)),
            }
        }
        Wanted::Continuation { tokens: most, .. } => {
            if tokens.len() > *most {
                return Err(format!(
                    "the response has {} tokens where at most {most} are asked for",
                    tokens.len()
                ));
            }
            let finish = choice["finish_reason"].as_str().unwrap_or_default();
            match finish {
                "stop" | "length" => Ok(Found::Continuation { ended: finish == "stop", tokens }),
                other => {
                    Err(format!("the response ends with finish_reason '{other}', not stop or length"))
                }
            }
        }
    }
}

/// The tokens of a choice.
pub(super) fn tokens(choice: &Value) -> Result<Vec<Drawn>, String> {
    let log_probs = &choice["logprobs"];
    match log_probs["content"].as_array() {
        Some(content) => content.iter().map(of_entry).collect(),
        None => of_columns(choice, log_probs),
    }
}

/// A token with an integer id, as llama-server gives it.
fn of_entry(entry: &Value) -> Result<Drawn, String> {
    let (token, log_prob) = pair(entry)?;
    let top = entry["top_logprobs"].as_array().into_iter().flatten();
    Ok(Drawn { token, log_prob, likeliest: likeliest(top.map(pair))? })
}

fn pair(entry: &Value) -> Result<(u32, f64), String> {
    let id = entry["id"].as_u64().and_then(|id| u32::try_from(id).ok());
    let id = id.ok_or("a token of the response has no id: this server cannot be a policy")?;
    Ok((id, log_prob(&entry["logprob"])?))
}

/// Tokens in columns, as vLLM gives them.
fn of_columns(choice: &Value, log_probs: &Value) -> Result<Vec<Drawn>, String> {
    let named = log_probs["tokens"].as_array();
    let ids = match (choice["token_ids"].as_array(), named) {
        (Some(ids), _) => ids
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| odd_id(id)))
            .collect::<Result<Vec<u32>, String>>()?,
        (None, Some(named)) => named
            .iter()
            .map(|name| of_name(name.as_str().unwrap_or_default()))
            .collect::<Result<_, _>>()?,
        (None, None) => {
            return Err("the response has neither token ids nor log-probabilities".to_owned());
        }
    };
    let of_tokens = log_probs["token_logprobs"].as_array().map_or(&[][..], Vec::as_slice);
    let tops = log_probs["top_logprobs"].as_array().map_or(&[][..], Vec::as_slice);
    if of_tokens.len() != ids.len() {
        let (n, ids) = (of_tokens.len(), ids.len());
        return Err(format!("the response has {n} log-probabilities of {ids} tokens"));
    }
    let drawn = |(i, (token, value)): (usize, (u32, &Value))| {
        let top = tops.get(i).and_then(Value::as_object).into_iter().flatten();
        let top = top.map(|(name, value)| Ok((of_name(name)?, log_prob(value)?)));
        Ok(Drawn { token, log_prob: log_prob(value)?, likeliest: likeliest(top)? })
    };
    ids.into_iter().zip(of_tokens).enumerate().map(drawn).collect()
}

/// The number in `token_id:7`.
fn of_name(name: &str) -> Result<u32, String> {
    let number = name.strip_prefix("token_id:").and_then(|number| number.parse().ok());
    number.ok_or_else(|| {
        format!(
            "a token of the response is named '{name}', not by its id: this server cannot be a policy"
        )
    })
}

fn odd_id(id: &Value) -> String {
    format!("a token of the response has the id {id}")
}

fn log_prob(value: &Value) -> Result<f64, String> {
    let number = value.as_f64().filter(|number| number.is_finite() && *number < 1e-3);
    number.ok_or_else(|| format!("the response has the log-probability {value}"))
}

/// Likeliest first; a token that comes twice counts once.
fn likeliest(all: impl Iterator<Item = Result<(u32, f64), String>>) -> Result<Likeliest, String> {
    let mut all = all.collect::<Result<Vec<_>, String>>()?;
    all.sort_by(|(a, one), (b, other)| other.total_cmp(one).then(a.cmp(b)));
    let mut seen = std::collections::HashSet::new();
    all.retain(|(token, _)| seen.insert(*token));
    Ok(Likeliest(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What real engines answered.
    fn recorded(name: &str) -> Value {
        let lines = include_str!("recorded.jsonl").lines();
        let all = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.into_iter().find(|one| one["name"] == name).unwrap()["response"].clone()
    }

    fn read(name: &str) -> Result<Vec<Drawn>, String> {
        tokens(&recorded(name)["choices"][0])
    }

    #[test]
    fn tokens_of_vllm_have_their_ids() {
        let all = read("completion_tokens_as_ids").unwrap();
        assert_eq!(all.iter().map(|drawn| drawn.token).collect::<Vec<_>>(), [7042, 30]);
        assert_eq!(all[0].log_prob, -0.26282957196235657);
        assert_eq!(
            all[1].likeliest.0.iter().map(|(token, _)| *token).collect::<Vec<_>>(),
            [30, 28, 284]
        );
        // Tokens with the same text, half a character, stay apart.
        let halves = read("completion_emoji_ids").unwrap();
        assert_eq!(
            halves.iter().map(|drawn| drawn.token).collect::<Vec<_>>(),
            [10813, 242, 218, 198, 198, 19]
        );
        assert!(halves.iter().all(|drawn| drawn.likeliest.0.len() == 3));
        // Of equals the lower number comes first, whatever the server's order.
        assert_eq!(halves[5].likeliest.0[0].0, 19);
    }

    #[test]
    fn tokens_of_llama_server_have_their_ids() {
        let all = read("v1_completions_token_ids").unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(
            all[0].likeliest.0,
            [(7042, -0.24842411279678345), (260, -2.7847447395324707), (4528, -4.35370397567749)]
        );
    }

    #[test]
    fn tokens_that_are_named_by_their_text_are_refused() {
        let problem = read("completion_token_ids_prompt").unwrap_err();
        assert!(problem.contains("not by its id"), "{problem}");
        assert_eq!(recorded("completion_logprobs_21")["error"]["code"], 400);
    }
}
