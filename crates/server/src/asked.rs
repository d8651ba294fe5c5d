//! A request that is ready to be decoded: tokens, settings, guidance.

use std::sync::Arc;

use stackelberg_data::Prompt;
use stackelberg_decoding::{Options, Request, Settings, Want};
use stackelberg_engine::reward::ValueHead;
use stackelberg_engine::{Reward, Tokenizer};

use crate::app::App;
use crate::error::ApiError;
use crate::guidance::{Guidance, given};
use crate::openai::request::{Common, StreamOptions};
use crate::{refuse, settings};

/// A prompt, tokenized.
pub(crate) struct Prompted {
    pub(crate) tokens: Vec<u32>,
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
    pub(crate) guidance: Guidance,
    reward: Option<Reward>,
    value: Option<Arc<ValueHead>>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Options of the stream, if the answer is streamed.
    pub(crate) stream: Option<StreamOptions>,
    pub(crate) token_ids: bool,
}

/// What is checked before the prompt is tokenized.
pub(crate) struct Plan {
    common: Common,
    guidance: Guidance,
    options: Options,
    reward: Option<Reward>,
    value: Option<Arc<ValueHead>>,
    n: usize,
}

impl Plan {
    /// Checks a request for so many prompts.
    ///
    /// # Errors
    /// The model is unknown, or a field is no good.
    pub(crate) fn new(app: &App, mut common: Common, prompts: usize) -> Result<Self, ApiError> {
        check_model(app, common.model.as_deref())?;
        refuse::common(&common)?;
        let n = choices(app, common.n, prompts)?;
        let own = given(common.guidance.take(), common.extra_body.take(), common.vllm_xargs.take())?;
        let guidance = match own {
            Some(value) => Guidance::read(value, app.default.as_ref())?,
            None => app.default.clone().unwrap_or_else(Guidance::base),
        };
        guidance.check(&app.models)?;
        let reward = guidance.reward.as_deref();
        let reward = reward.map(|name| app.models.reward("guidance.reward", name)).transpose()?;
        let value = guidance.value.as_deref().map(|name| app.models.value(name)).transpose()?;
        let options = settings::options(&common, &guidance, &app.config.limits)?;
        Ok(Self { common, guidance, options, reward, value, n })
    }

    /// The request with its prompts. `default` is the number of new tokens if it says nothing.
    ///
    /// # Errors
    /// A prompt is empty, has unknown tokens, or does not fit the context with its answer.
    pub(crate) fn with_prompts(
        self,
        app: &App,
        prompts: Vec<Prompted>,
        default: usize,
    ) -> Result<Asked, ApiError> {
        let Self { common, guidance, options, reward, value, n } = self;
        let policy = &app.models.policy;
        let model = policy.model.context();
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
        let mut settings = Vec::with_capacity(prompts.len());
        for Prompted { tokens, .. } in &prompts {
            check_tokens(app, "prompt", tokens)?;
            let room =
                settings::room(tokens.len(), common.max_tokens, default, context, &app.config.limits)?;
            let one = settings::settings(&options, room, seed)?;
            one.check(policy.model.config().vocabulary).map_err(|error| ApiError::decoding(&error))?;
            settings.push(Arc::new(one));
        }
        let streams = common.stream.unwrap_or(false);
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

    /// The names of the rewards of a combination.
    pub(crate) fn parts(&self) -> &[String] {
        self.reward.as_ref().map_or(&[], Reward::parts)
    }

    /// Tokens of all prompts.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompted| prompted.tokens.len()).sum()
    }
}

/// Checks the name of the policy.
///
/// # Errors
/// It is another model's.
pub(crate) fn check_model(app: &App, model: Option<&str>) -> Result<(), ApiError> {
    match model {
        Some(model) if model != app.models.name => {
            let message =
                format!("the model {model:?} does not exist: this server has {:?}", app.models.name);
            Err(ApiError::no_model(message))
        }
        _ => Ok(()),
    }
}

/// Checks that tokens are in the vocabulary, and that there are some.
///
/// # Errors
/// There are none, or one is not.
pub(crate) fn check_tokens(app: &App, field: &str, tokens: &[u32]) -> Result<(), ApiError> {
    let vocabulary = app.models.policy.model.config().vocabulary;
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
