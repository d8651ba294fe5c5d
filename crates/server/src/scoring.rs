//! The rewards themselves: `POST /score` and `POST /classify`, in the shapes of vLLM. Numbers are raw.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use stackelberg_data::Prompt;
use stackelberg_engine::{ChatEnd, LaidOut, Reward, TextProcessor};
use stackelberg_registry::guidance::known;
use utoipa::ToSchema;

use crate::app::{App, blocking, now};
use crate::asked::{check_length, check_tokens, numbered};
use crate::body;
use crate::error::ApiError;
use crate::openai::answer::Usage;
use crate::openai::message::{ChatMessage, messages};
use crate::openai::objects;
use crate::openai::prompts::{OneOrMany, Prompts, PromptsSchema};
use crate::score_one::{Ready, one};

/// Pairs of texts to score.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are accepted and not used")]
pub(crate) struct ScoreRequest {
    /// A reward's name, or a combination of several. May be left out if there is one.
    model: Option<String>,
    /// A prompt, or one for each answer.
    text_1: Option<OneOrMany>,
    /// Answers.
    text_2: Option<OneOrMany>,
    /// Another name of `text_1`.
    queries: Option<OneOrMany>,
    /// Another name of `text_2`.
    documents: Option<OneOrMany>,
    /// Another name of `text_2`.
    items: Option<OneOrMany>,
    /// Must be false: scores are raw.
    use_activation: Option<bool>,
    /// Accepted and not used.
    user: Option<String>,
}

/// Texts to score.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are accepted and not used")]
pub(crate) struct ClassifyRequest {
    /// A reward's name, or a combination of several. May be left out if there is one.
    model: Option<String>,
    /// Texts, or token ids of the policy.
    #[schema(value_type = Option<PromptsSchema>)]
    input: Option<Prompts>,
    /// Or a conversation, whose last message is the answer.
    #[serde(default, deserialize_with = "objects::several")]
    messages: Option<Vec<ChatMessage>>,
    /// Must be false: scores are raw.
    use_activation: Option<bool>,
    /// Must be false: a conversation is complete.
    add_generation_prompt: Option<bool>,
    /// Accepted and not used.
    user: Option<String>,
}

/// A list of scores.
#[derive(Serialize, ToSchema)]
pub(crate) struct Scores<T> {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    data: Vec<T>,
    /// Tokens of the policy in the texts.
    usage: Usage,
}

/// The score of a pair.
#[derive(Serialize, ToSchema)]
pub(crate) struct ScoreData {
    index: usize,
    object: &'static str,
    score: f64,
}

/// The score of a text.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassData {
    index: usize,
    /// The reward.
    label: String,
    /// The raw reward.
    probs: [f64; 1],
    num_classes: usize,
}

/// Rewards of answers to prompts.
#[utoipa::path(post, path = "/score", tag = "rewards", request_body = ScoreRequest,
    responses((status = 200, description = "The answer", body = inline(Scores<ScoreData>)), (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody)))]
pub(crate) async fn score(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: ScoreRequest = body::read(request, &app).await?;
    raw(request.use_activation)?;
    let (name, reward) = reward(&app, request.model)?;
    // The field that is given, of those that mean the same.
    let list = |names: [(&'static str, Option<OneOrMany>); 3]| {
        let first = names[0].0;
        let mut given = names.into_iter().filter_map(|(name, texts)| Some((name, texts?.into_vec())));
        let (name, texts) = given.next().unwrap_or((first, Vec::new()));
        if let Some((other, _)) = given.next() {
            return Err(ApiError::invalid(other, format!("{other} means {name}: give one of them")));
        }
        let most = app.config.limits.texts;
        if texts.is_empty() || texts.len() > most {
            let message = format!("{name} has {} texts: it must have between 1 and {most}", texts.len());
            return Err(ApiError::invalid(name, message));
        }
        Ok((name, texts))
    };
    let (_, prompts) =
        list([("text_1", request.text_1), ("queries", request.queries), ("text_1", None)])?;
    let (field, answers) =
        list([("text_2", request.text_2), ("documents", request.documents), ("items", request.items)])?;
    if prompts.len() != 1 && prompts.len() != answers.len() {
        let message = format!(
            "text_1 has {} texts and text_2 {}: give one, or one for each",
            prompts.len(),
            answers.len()
        );
        return Err(ApiError::invalid("text_1", message));
    }
    let prompts: Vec<Arc<Shared>> = prompts.into_iter().map(Shared::new).collect();
    let prompt = |i: usize| prompts[if prompts.len() == 1 { 0 } else { i }].clone();
    let texts = answers.into_iter().enumerate().map(|(i, answer)| Text::Answer(prompt(i), answer));
    let (scores, usage) = app.unless_aborted(scores(&app, &reward, texts.collect(), field)).await?;
    let data = scores.into_iter().enumerate();
    let data = data.map(|(index, score)| ScoreData { index, object: "score", score }).collect();
    body::json(&Scores { id: app.id("score"), object: "list", created: now(), model: name, data, usage })
}

/// Rewards of texts, or of the last message of a conversation.
#[utoipa::path(post, path = "/classify", tag = "rewards", request_body = ClassifyRequest,
    responses((status = 200, description = "The answer", body = inline(Scores<ClassData>)), (status = "4XX", description = "The request is wrong: the error names the field", body = crate::error::ErrorBody)))]
pub(crate) async fn classify(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request: ClassifyRequest = body::read(request, &app).await?;
    raw(request.use_activation)?;
    let (name, reward) = reward(&app, request.model)?;
    if request.add_generation_prompt == Some(true) {
        let message =
            "add_generation_prompt is not supported: a conversation that is scored is complete";
        return Err(ApiError::unsupported("add_generation_prompt", message));
    }
    let (field, texts): (_, Vec<Text>) = match (request.input, request.messages) {
        (Some(Prompts::Texts(texts)), None) => ("input", texts.into_iter().map(Text::Alone).collect()),
        (Some(Prompts::Ids(lists)), None) => ("input", lists.into_iter().map(Text::Tokens).collect()),
        (None, Some(list)) => {
            ("messages", vec![Text::Chat(messages(list, app.config.limits.messages)?)])
        }
        _ => return Err(ApiError::invalid("input", "give either input or messages")),
    };
    let most = app.config.limits.texts;
    if texts.is_empty() || texts.len() > most {
        let message = format!("input has {} texts: it must have between 1 and {most}", texts.len());
        return Err(ApiError::invalid("input", message));
    }
    let (scores, usage) = app.unless_aborted(scores(&app, &reward, texts, field)).await?;
    let data = scores.into_iter().enumerate();
    let class =
        |(index, score)| ClassData { index, label: name.clone(), probs: [score], num_classes: 1 };
    let data = data.map(class).collect();
    body::json(&Scores {
        id: app.id("classify"),
        object: "list",
        created: now(),
        model: name.clone(),
        data,
        usage,
    })
}

fn raw(use_activation: Option<bool>) -> Result<(), ApiError> {
    if use_activation == Some(true) {
        let message = "use_activation is not supported: rewards are raw numbers";
        return Err(ApiError::unsupported("use_activation", message));
    }
    Ok(())
}

/// The reward of this name; without a name, the only one.
fn reward(app: &App, name: Option<String>) -> Result<(String, Reward), ApiError> {
    let models = &app.models;
    let only = || {
        let mut names = models.rewards();
        names.next().filter(|_| names.next().is_none()).map(str::to_owned)
    };
    let missing = || {
        ApiError::invalid(
            "model",
            format!("model is missing: name a reward; {}", known(models.rewards())),
        )
    };
    let name = name.or_else(only).ok_or_else(missing)?;
    match models.reward("model", &name) {
        Ok(reward) => Ok((name, reward)),
        // An expression that cannot be read is no name.
        Err(error) if name.contains(['*', '+', '(', ')', ',']) => Err(error),
        Err(error) => Err(ApiError::no_model(error.message)),
    }
}

/// A text to score.
enum Text {
    /// An answer to a prompt.
    Answer(Arc<Shared>, String),
    /// A text as it is.
    Alone(String),
    /// The policy's tokens.
    Tokens(Vec<u32>),
    /// A conversation, whose last message is the answer.
    Chat(Vec<stackelberg_engine::Message>),
}

/// A prompt that several answers may have.
struct Shared {
    prompt: Arc<Prompt>,
    /// Its number of tokens, once it is known.
    tokens: OnceLock<usize>,
}

impl Shared {
    fn new(text: String) -> Arc<Self> {
        Arc::new(Self { prompt: Arc::new(Prompt::Text(text)), tokens: OnceLock::new() })
    }

    fn tokens(&self, policy: &TextProcessor) -> stackelberg_engine::Result<usize> {
        if let Some(tokens) = self.tokens.get() {
            return Ok(*tokens);
        }
        let tokens = count(policy, &self.prompt.raw(None))?;
        Ok(*self.tokens.get_or_init(|| tokens))
    }
}

/// Scores texts one after the other. They are tokenized where nothing else waits for it, and scored between the steps of the
/// engine, so that answers go on meanwhile. Also gives the number of tokens. `field` is where the texts were given.
async fn scores(
    app: &Arc<App>,
    reward: &Reward,
    texts: Vec<Text>,
    field: &str,
) -> Result<(Vec<f64>, Usage), ApiError> {
    // Remote rewards can take long.
    let _asks = match reward.is_remote() {
        true => Some(app.remote.acquire().await.map_err(|error| ApiError::internal(&error))?),
        false => None,
    };
    let place = app.engine.reserve(1)?;
    let (mut scores, mut tokens) = (Vec::with_capacity(texts.len()), 0);
    let all = texts.len();
    for (number, text) in texts.into_iter().enumerate() {
        let (shared, of_text, field) = (app.clone(), reward.clone(), numbered(field, number, all));
        let (ready, count) = blocking(move || prepared(&shared, &of_text, &text, &field)).await?;
        let score = match (reward, ready) {
            (Reward::Combined(combined), Ready::Parts(parts)) => {
                let mut each = Vec::with_capacity(parts.len());
                for (reward, ready) in combined.rewards().iter().zip(parts) {
                    each.push(vec![one(app, &place, reward, ready).await?]);
                }
                combined.of(&each).first().copied().unwrap_or(f64::NAN)
            }
            (reward, ready) => one(app, &place, reward, ready).await?,
        };
        if !score.is_finite() {
            return Err(ApiError::internal(&format!("a reward is {score}")));
        }
        scores.push(score);
        tokens += count;
    }
    Ok((scores, Usage::new(tokens, 0)))
}

/// The number of tokens of a text.
fn count(policy: &TextProcessor, text: &str) -> stackelberg_engine::Result<usize> {
    policy.tokenizer.encode(text, false).map(|tokens| tokens.len())
}

/// A text as a reward reads it, and its number of tokens.
fn prepared(app: &App, reward: &Reward, text: &Text, field: &str) -> Result<(Ready, usize), ApiError> {
    let policy = &app.models.policy;
    let failed = |error: stackelberg_engine::Error| ApiError::engine(&error);
    if let Text::Tokens(tokens) = text {
        check_tokens(app, field, tokens)?;
    }
    match reward {
        Reward::Combined(combined) => {
            let parts: Vec<(Ready, usize)> = combined
                .rewards()
                .iter()
                .map(|part| prepared(app, part, text, field))
                .collect::<Result<_, _>>()?;
            let tokens = parts.iter().map(|(_, tokens)| *tokens).max().unwrap_or_default();
            Ok((Ready::Parts(parts.into_iter().map(|(ready, _)| ready).collect()), tokens))
        }
        Reward::Text(_) => {
            let alone = |text: String| Ok((count(policy, &text)?, Ready::Alone(text)));
            let found: stackelberg_engine::Result<(usize, Ready)> = match text {
                Text::Answer(prompt, answer) => prompt.tokens(policy).and_then(|tokens| {
                    let ready = Ready::Pair(prompt.prompt.clone(), answer.clone());
                    Ok((tokens + count(policy, answer)?, ready))
                }),
                Text::Alone(text) => alone(text.clone()),
                Text::Tokens(tokens) => policy.tokenizer.decode(tokens, false).and_then(alone),
                Text::Chat(messages) => match messages.split_last() {
                    Some((last, before)) => {
                        let prompt = Arc::new(Prompt::Messages(before.to_vec()));
                        let tokens = count(policy, &prompt.raw(None));
                        let all = tokens.and_then(|tokens| Ok(tokens + count(policy, &last.content)?));
                        all.map(|all| (all, Ready::Pair(prompt, last.content.clone())))
                    }
                    None => alone(String::new()),
                },
            };
            found.map(|(tokens, ready)| (ready, tokens)).map_err(failed)
        }
        Reward::Head(_) | Reward::Model(_) => {
            let tokens = tokens_of(app, reward, text, field)?;
            let context = reward.context(policy.context());
            if tokens.is_empty() {
                return Err(ApiError::invalid(field, format!("{field}: an empty text has no reward")));
            }
            if tokens.len() > context {
                let message =
                    format!("{field}: {} tokens do not fit the context of {context}", tokens.len());
                return Err(ApiError::too_long(field, message));
            }
            let count = tokens.len();
            Ok((Ready::Tokens(tokens), count))
        }
    }
}

/// The tokens that a head or a reward model reads.
fn tokens_of(app: &App, reward: &Reward, text: &Text, field: &str) -> Result<Vec<u32>, ApiError> {
    let policy = &app.models.policy;
    let format = reward.text_format(policy);
    let bytes = match text {
        Text::Answer(prompt, answer) => prompt.prompt.raw(None).len() + answer.len(),
        Text::Alone(text) => text.len(),
        Text::Tokens(_) => 0,
        Text::Chat(messages) => messages.iter().map(|message| message.content.len()).sum(),
    };
    check_length(app, field, bytes)?;
    let tokens = match text {
        Text::Answer(prompt, answer) => policy
            .lay_out(&prompt.prompt, None, format)
            .and_then(|text| policy.read(&policy.answered(&text, answer))),
        Text::Alone(text) => policy.read(&LaidOut::as_is(text, format)),
        Text::Tokens(tokens) => Ok(tokens.clone()),
        Text::Chat(messages) => policy
            .lay_out_chat(messages, ChatEnd::Complete, Default::default())
            .and_then(|text| policy.read(&text)),
    };
    tokens.map_err(|error| ApiError::engine(&error))
}
