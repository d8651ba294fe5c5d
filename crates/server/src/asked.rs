//! A request that is ready to be decoded: tokens, settings, guidance.

use std::sync::Arc;

use stackelberg_data::Prompt;
use stackelberg_decoding::{Options, Request, Settings, Want};
use stackelberg_engine::reward::ValueHead;
use stackelberg_engine::{Reward, Tokenizer};
use stackelberg_registry::guidance::GuidanceSpec;

use crate::app::App;
use crate::config::Limits;
use crate::engine::Places;
use crate::error::{ApiError, cut};
use crate::guidance::given;
use crate::logprobs::Names;
use crate::openai::request::{Common, StreamOptions};
use crate::prompt_rows::{Row, rows};
use crate::{refuse, settings};

/// Bytes per token of the context, beyond which a text is not tokenized.
const BYTES: usize = 64;

/// Characters of an unknown name that errors repeat.
const NAME: usize = 100;

/// A prompt, tokenized.
pub(crate) struct Prompted {
    pub(crate) tokens: Vec<u32>,
    /// The text of tokens that were given in place of a text, special tokens included.
    pub(crate) text: Option<String>,
    /// The prompt itself, for rewards that read text.
    pub(crate) prompt: Prompt,
}

/// A request that is ready to be decoded.
pub(crate) struct Asked {
    pub(crate) prompts: Vec<Prompted>,
    /// One for each prompt.
    settings: Vec<Arc<Settings>>,
    /// Choices per prompt.
    pub(crate) n: usize,
    pub(crate) seed: u64,
    pub(crate) guidance: GuidanceSpec,
    reward: Option<Reward>,
    value: Option<Arc<ValueHead>>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Options of the stream, if the answer is streamed.
    pub(crate) stream: Option<StreamOptions>,
    pub(crate) token_ids: bool,
    /// The number of likeliest tokens whose log-probabilities are wanted beside those of the answer's.
    pub(crate) logprobs: Option<usize>,
    /// The same for the tokens of the prompt.
    pub(crate) prompt_logprobs: Option<usize>,
    /// Whether log-probabilities name tokens by their ids.
    pub(crate) tokens_as_ids: bool,
    /// Whether answers begin with the prompt.
    pub(crate) echo: bool,
    /// Whether something is generated; otherwise the prompt is all that is wanted.
    pub(crate) generates: bool,
    /// Of each prompt the log-probabilities of its tokens, where they are wanted.
    pub(crate) rows: Vec<Vec<Row>>,
}

/// What is checked before the prompt is tokenized.
pub(crate) struct Plan {
    common: Common,
    guidance: GuidanceSpec,
    options: Options,
    reward: Option<Reward>,
    value: Option<Arc<ValueHead>>,
    n: usize,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    /// Whether the request says how long a block is.
    own_block: bool,
}

impl Plan {
    /// Checks a request for so many prompts, with the log-probabilities of so many likeliest tokens.
    ///
    /// # Errors
    /// The model is unknown, or a field is no good.
    pub(crate) fn new(
        app: &App,
        mut common: Common,
        prompts: usize,
        logprobs: Option<usize>,
    ) -> Result<Self, ApiError> {
        check_model(app, common.model.as_deref())?;
        refuse::common(&common)?;
        let n = choices(app, common.n, prompts)?;
        let own = given(common.guidance.take(), common.extra_body.take(), common.vllm_xargs.take())?;
        let own_block =
            own.as_ref().and_then(|own| own.get("block")).is_some_and(|block| !block.is_null());
        let guidance = match own {
            Some(value) => GuidanceSpec::read(value, app.default.as_ref())?,
            None => app.default.clone().unwrap_or_else(GuidanceSpec::base),
        };
        app.models.check(&guidance)?;
        let reward = guidance.reward.as_deref();
        let reward = reward.map(|name| app.models.reward("guidance.reward", name)).transpose()?;
        let value = guidance.value.as_deref().map(|name| app.models.value(name)).transpose()?;
        let mut options = settings::options(&common, &guidance, &app.config.limits)?;
        options.log_probs = logprobs;
        let prompt_logprobs = settings::likeliest("prompt_logprobs", common.prompt_logprobs)?;
        if prompt_logprobs.is_some() && common.stream == Some(true) {
            let message = "prompt_logprobs is not supported in streams: leave out stream";
            return Err(ApiError::unsupported("prompt_logprobs", message));
        }
        Ok(Self { common, guidance, options, reward, value, n, logprobs, prompt_logprobs, own_block })
    }

    /// The request with its prompts, which are those of `field`. `default` is the number of new tokens if it says nothing.
    ///
    /// # Errors
    /// A prompt is empty, has unknown tokens, or does not fit the context with its answer.
    pub(crate) fn with_prompts(
        self,
        app: &App,
        prompts: Vec<Prompted>,
        field: &str,
        default: usize,
    ) -> Result<Asked, ApiError> {
        let Self { common, guidance, options, reward, value, n, logprobs, prompt_logprobs, own_block } =
            self;
        let policy = &app.models.policy;
        let model = policy.context();
        let context =
            reward.as_ref().and_then(Reward::limit).map_or(model, |(_, limit)| limit.min(model));
        let seed = match &common.seed {
            None => app.random(),
            Some(seed) => {
                seed.as_u64().or_else(|| seed.as_i64().map(|seed| seed as u64)).ok_or_else(|| {
                    ApiError::invalid(
                        "seed",
                        format!("seed is {seed}: it must be a whole number of 64 bits"),
                    )
                })?
            }
        };
        let echo = common.echo.unwrap_or(false);
        // A prompt may be wanted with its log-probabilities, and no answer.
        let generates = !(echo && common.max_tokens == Some(0));
        let max_tokens = common.max_tokens;
        let mut settings = Vec::with_capacity(prompts.len());
        for (number, Prompted { tokens, .. }) in prompts.iter().enumerate() {
            let field = numbered(field, number, prompts.len());
            check_tokens(app, &field, tokens)?;
            let limits = &app.config.limits;
            let room = match generates {
                true => settings::room((&field, tokens.len()), max_tokens, default, context, limits)?,
                false => settings::read_alone((&field, tokens.len()), context, limits)?,
            };
            let mut options = options.clone();
            if !own_block {
                // The operator's block is not the choice of the client that asks for a short answer.
                options.block = options.block.map(|block| block.min(room));
            }
            let one = settings::settings(&options, room, seed)?;
            one.check(policy.vocabulary()).map_err(|error| ApiError::decoding(&error))?;
            settings.push(Arc::new(one));
        }
        let streams = common.stream.unwrap_or(false);
        if !streams && generates {
            check_entries(&settings, n, guidance.trace, logprobs, &app.config.limits)?;
        }
        if !streams && common.stream_options.is_some() {
            return Err(ApiError::invalid(
                "stream_options",
                "stream_options has no effect without stream",
            ));
        }
        Ok(Asked {
            prompts,
            settings,
            n,
            seed,
            guidance,
            reward,
            value,
            tokenizer: policy.tokenizer.clone(),
            stream: streams.then(|| common.stream_options.unwrap_or_default()),
            token_ids: common.return_token_ids.unwrap_or(false),
            logprobs,
            prompt_logprobs,
            tokens_as_ids: common.return_tokens_as_token_ids.unwrap_or(false),
            echo,
            generates,
            rows: Vec::new(),
        })
    }

    /// Choices per prompt.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Whether a text gets the special tokens of every text.
    pub(crate) fn special(&self, default: bool) -> bool {
        self.common.add_special_tokens.unwrap_or(default)
    }
}

/// Checks how much of the steps an answer tells that is kept until all of it is there.
fn check_entries(
    settings: &[Arc<Settings>],
    n: usize,
    trace: bool,
    logprobs: Option<usize>,
    limits: &Limits,
) -> Result<(), ApiError> {
    let of_step = |one: &Settings| {
        let told = if trace { one.candidates } else { 0 };
        told + logprobs.map_or(0, |top| top + 1)
    };
    let of_prompt = |one: &Arc<Settings>| one.max_new_tokens.saturating_mul(of_step(one));
    let prompts = settings.iter().map(of_prompt).fold(0, usize::saturating_add);
    let (all, most) = (prompts.saturating_mul(n), limits.entries);
    if all <= most {
        return Ok(());
    }
    let field = if trace { "guidance.trace" } else { "logprobs" };
    let message = format!(
        "{field}: up to {all} candidates and likeliest tokens: this server keeps at most {most} for an answer that is not \
         streamed: set stream, or lower max_tokens"
    );
    Err(ApiError::invalid(field, message))
}

impl Asked {
    /// The choices of the request: those of a prompt one after the other. What a choice becomes depends on its place among
    /// those of its prompt, its prompt, its settings and the seed.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let mut requests = Vec::with_capacity(self.choices());
        for (prompted, settings) in self.prompts.iter().zip(&self.settings) {
            let prompt = Arc::new(prompted.prompt.clone());
            requests.extend((0..self.n).map(|choice| Request {
                id: choice.to_string(),
                prompt: prompted.tokens.clone(),
                asked: Some(prompt.clone()),
                settings: settings.clone(),
                reward: self.reward.clone(),
                value: self.value.clone(),
                want: Want::Answer,
                steps: true,
            }));
        }
        requests
    }

    /// Choices of all prompts.
    pub(crate) fn choices(&self) -> usize {
        self.prompts.len() * self.n
    }

    /// The prompt of a choice.
    pub(crate) fn prompt(&self, choice: usize) -> &Prompted {
        &self.prompts[choice / self.n]
    }

    /// The settings of a choice.
    pub(crate) fn settings(&self, choice: usize) -> &Settings {
        &self.settings[choice / self.n]
    }

    /// How log-probabilities name tokens.
    pub(crate) fn names(&self) -> Names<'_> {
        Names { tokenizer: &self.tokenizer, ids: self.tokens_as_ids }
    }

    /// Computes the log-probabilities of the prompts' tokens, if they are wanted.
    ///
    /// # Errors
    /// As [`rows`].
    pub(crate) async fn read_prompts(&mut self, app: &App, place: &Places) -> Result<(), ApiError> {
        let of_echo = self.logprobs.filter(|_| self.echo);
        let Some(top) = of_echo.max(self.prompt_logprobs) else { return Ok(()) };
        let (count, most) = (self.prompt_tokens() * self.n * (top + 1), app.config.limits.logprobs);
        if count > most {
            let field = if self.prompt_logprobs.is_some() { "prompt_logprobs" } else { "logprobs" };
            let message = format!(
                "{field}: {count} log-probabilities of prompts: this server writes at most {most} per request"
            );
            return Err(ApiError::invalid(field, message));
        }
        let _reads = app.readers.acquire().await.map_err(|error| ApiError::internal(&error))?;
        for prompted in &self.prompts {
            self.rows.push(rows(app, place, &prompted.tokens, top).await?);
        }
        Ok(())
    }

    /// The log-probabilities of the tokens of a choice's prompt.
    pub(crate) fn prompt_rows(&self, choice: usize) -> &[Row] {
        self.rows.get(choice / self.n).map_or(&[], |rows| rows)
    }

    /// The names of the rewards of a combination.
    pub(crate) fn parts(&self) -> &[String] {
        self.reward.as_ref().map_or(&[], Reward::parts)
    }

    /// Tokens of all prompts.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompted| prompted.tokens.len()).sum()
    }
}

/// The name of an element of a list, if there are several.
pub(crate) fn numbered(field: &str, number: usize, of: usize) -> String {
    if of > 1 { format!("{field}[{number}]") } else { field.to_owned() }
}

/// Checks the name of the policy.
///
/// # Errors
/// It is another model's.
pub(crate) fn check_model(app: &App, model: Option<&str>) -> Result<(), ApiError> {
    match model {
        Some(model) if model != app.models.name => {
            let message = format!(
                "the model {:?} does not exist: this server has {:?}",
                cut(model, NAME),
                app.models.name
            );
            Err(ApiError::no_model(message))
        }
        _ => Ok(()),
    }
}

/// Checks that a text of so many bytes may fit the context, before it is tokenized.
///
/// # Errors
/// It is far too long.
pub(crate) fn check_length(app: &App, field: &str, bytes: usize) -> Result<(), ApiError> {
    let context = app.models.policy.context();
    let most = context.saturating_mul(BYTES);
    if bytes > most {
        let message = format!(
            "{field} has {bytes} bytes: with at most {BYTES} bytes a token, it must fit the context of {context} tokens"
        );
        return Err(ApiError::too_long(field, message));
    }
    Ok(())
}

/// Checks that tokens are in the vocabulary, and that there are some.
///
/// # Errors
/// There are none, or one is not.
pub(crate) fn check_tokens(app: &App, field: &str, tokens: &[u32]) -> Result<(), ApiError> {
    let vocabulary = app.models.policy.vocabulary();
    if tokens.is_empty() {
        return Err(ApiError::invalid(
            field,
            format!("{field} is empty: it must have at least one token"),
        ));
    }
    match tokens.iter().find(|token| **token as usize >= vocabulary) {
        None => Ok(()),
        Some(token) => {
            let message = format!("{field}: token {token} is outside the vocabulary of {vocabulary}");
            Err(ApiError::invalid(field, message))
        }
    }
}

/// The number of choices per prompt.
fn choices(app: &App, n: Option<u64>, prompts: usize) -> Result<usize, ApiError> {
    let n = n.unwrap_or(1);
    let most = app.config.limits.choices.min(app.engine.capacity());
    if n == 0 {
        return Err(ApiError::invalid("n", "n is 0: it must be at least 1"));
    }
    match n.checked_mul(prompts as u64) {
        Some(all) if all <= most as u64 => Ok(n as usize),
        _ if n > most as u64 => {
            Err(ApiError::invalid("n", format!("n is {n}: this server takes at most {most} choices")))
        }
        _ => {
            let message =
                format!("{prompts} prompts with n = {n}: this server takes at most {most} choices");
            Err(ApiError::invalid("prompt", message))
        }
    }
}
