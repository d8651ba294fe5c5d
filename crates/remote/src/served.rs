//! What a server says of itself: its model, its version, and the tokens of a text.

use serde_json::Value;
use stackelberg_engine::TextProcessor;

use crate::servers::{Failure, Server};

/// A text whose tokens differ between vocabularies.
pub(crate) const PROBE: &str =
    "The quick brown fox, 12345 na\u{ef}ve caf\u{e9}s \u{2014} \u{6f22}\u{5b57} \u{1f642}\n\n\tEnd.";

/// A model on a server.
pub(crate) struct Served {
    pub(crate) model: String,
    /// What it is, as the server was told: a folder there, a file or a name on the hub.
    pub(crate) root: String,
    /// Who says to own the model: the server's name.
    pub(crate) owner: String,
    /// The server's name and version, as far as it tells them.
    pub(crate) version: String,
    /// The longest text in tokens.
    pub(crate) context: usize,
}

impl Served {
    /// Asks a server about its model of this name; without a name, about the only one.
    ///
    /// # Errors
    /// A sentence that names the server.
    pub(crate) async fn find(server: &Server, model: &str) -> Result<Self, String> {
        let (models, version) = tokio::join!(server.get("models"), server.get("../version"));
        let models = models.map_err(|failure| match failure {
            Failure::Final { problem, refused: Some(404) } => format!(
                "{problem}: give the address of an OpenAI-compatible API, such as http://HOST:8000/v1"
            ),
            other => other.problem(),
        })?;
        let listed = models["data"].as_array().map_or(&[][..], Vec::as_slice);
        let names = || listed.iter().filter_map(|one| one["id"].as_str()).collect::<Vec<_>>().join(", ");
        let chosen = match (model, listed) {
            ("", [only]) => Some(only),
            ("", _) => None,
            (name, listed) => listed.iter().find(|one| one["id"] == name),
        };
        let chosen = chosen.ok_or_else(|| {
            let problem = match model {
                "" => format!("has the models {}: choose one, behind a '#'", names()),
                name => format!("has no model '{name}': it has {}", names()),
            };
            server.named(problem)
        })?;
        let model = chosen["id"].as_str().unwrap_or_default().to_owned();
        // Others name what they serve by the model's name.
        let root = chosen["root"].as_str().unwrap_or(&model).to_owned();
        let context = chosen["max_model_len"].as_u64().or(chosen["meta"]["n_ctx"].as_u64());
        let context = context
            .ok_or_else(|| server.named("does not say how long its model's context is".to_owned()))?;
        let owner = chosen["owned_by"].as_str().unwrap_or("unknown server").to_owned();
        let version = version.ok();
        let version = version.as_ref().and_then(|version| version["version"].as_str());
        let version = version.map_or_else(|| owner.clone(), |version| format!("{owner} {version}"));
        Ok(Self { model, root, owner, version, context: context as usize })
    }
}

/// The tokens of [`PROBE`] that a server gives to a request to `/tokenize`, if it does.
pub(crate) async fn tokenized(server: &Server, request: &Value) -> Option<Vec<u32>> {
    server.post("../tokenize", request).await.ok().and_then(|said| ids(&said["tokens"]))
}

/// Compares a server's tokens of [`PROBE`] with the tokenizer's here.
///
/// # Errors
/// They differ, or the tokenizer fails.
pub(crate) fn compare(text: &TextProcessor, theirs: &[u32]) -> Result<(), String> {
    let own = text.tokenizer.encode(PROBE, false).map_err(|error| error.to_string())?;
    // A beginning-of-text token may stand in front.
    if theirs.ends_with(&own) && theirs.len() <= own.len() + 1 {
        return Ok(());
    }
    Err(format!(
        "its tokenizer is not the one that is given here, {}: the same text has other tokens",
        text.path.display()
    ))
}

/// Token ids, as numbers or as objects with an `id`.
pub(crate) fn ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| {
        let id = value.as_u64().or(value["id"].as_u64());
        id.and_then(|id| u32::try_from(id).ok())
    };
    value.as_array()?.iter().map(id).collect()
}
