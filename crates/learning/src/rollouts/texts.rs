//! Formats and tokenizes imported samples as the policy reads them.

use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, LaidOut};

use super::collect::Prompt;
use super::foreign::Layout;
use super::samples::{Found, Place, Source};

/// How prompts are formatted.
#[derive(Debug, Clone, Copy)]
pub struct LayOut<'a> {
    /// The requested format, if any. It applies to prompts that are not formatted yet; [`TextFormat::Chat`] also
    /// applies to those of vLLM.
    pub asked: Option<TextFormat>,
    /// The format of prompts without a recorded format, if none is requested.
    pub otherwise: TextFormat,
    /// System message for prompts that are not formatted yet.
    pub system: Option<&'a str>,
    /// Largest number of tokens of prompt and response together, if they are run through the model.
    pub context: Option<usize>,
}

/// A tokenized sample.
#[derive(Debug)]
pub(super) struct Ready {
    pub text: String,
    pub tokens: Vec<u32>,
    pub reward: Option<f64>,
    pub cut: bool,
}

/// A prompt with its format and its samples.
pub(super) type Laid = (Prompt, Option<TextFormat>, Vec<(Ready, Tokens)>);

/// Origin of a response's tokens.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tokens {
    /// From the file.
    Given,
    /// Tokenized, since the file has none.
    Made,
    /// Tokenized, since those of the file do not fit the text.
    Replaced,
}

/// A place and the problem there.
type Wrong = (Place, String);

/// Formats a prompt and tokenizes its samples.
pub(super) fn ready(
    source: &Source,
    policy: Option<&Checkpoint>,
    lay_out: &LayOut<'_>,
    turn: Option<&str>,
) -> Result<Laid, Wrong> {
    let at = |place| move |e: stackelberg_engine::Error| (place, e.to_string());
    let here = at(source.place);
    let given = &source.given;
    // The format, and the system message if the prompt is not formatted yet.
    let (format, bare) = match (&given.layout, lay_out.asked) {
        (Layout::Done(Some(format)), _) => (*format, None),
        (Layout::Done(None), Some(TextFormat::Raw)) => (TextFormat::Raw, None),
        (Layout::Done(None), None) => {
            let chat = turn.is_some_and(|turn| given.prompt.raw(None).contains(turn));
            (if chat { TextFormat::Chat } else { TextFormat::Raw }, None)
        }
        (Layout::Done(None), Some(TextFormat::Chat)) => (TextFormat::Chat, Some(lay_out.system)),
        (Layout::Told(format, system), asked) => {
            (asked.unwrap_or(*format), Some(lay_out.system.or(system.as_deref())))
        }
        (Layout::None, asked) => (asked.unwrap_or(lay_out.otherwise), Some(lay_out.system)),
    };
    let laid_out = match (bare, policy) {
        (Some(system), Some(policy)) => policy.lay_out(&given.prompt, system, format).map_err(here)?,
        (system, _) => LaidOut::as_is(given.prompt.raw(system.flatten()), format),
    };
    let text = laid_out.text().to_owned();
    // The original prompt is unknown if only the formatted chat is given.
    let asked = match given.layout {
        Layout::Done(_) if format == TextFormat::Chat && bare.is_none() => None,
        _ => Some(given.prompt.clone()),
    };
    let Some(policy) = policy else {
        let plain = |found: &Found| (Ready::new(found, Vec::new()), Tokens::Given);
        let prompt = Prompt { id: source.id.clone(), text, tokens: Vec::new(), asked };
        let format = Some(format).filter(|_| bare.is_none());
        return Ok((prompt, format, source.found.iter().map(plain).collect()));
    };
    let own = given.tokens.as_ref().filter(|_| bare.is_none());
    let own = own.filter(|tokens| in_vocabulary(policy, tokens)).filter(|tokens| {
        let read = |special| policy.tokenizer.decode(tokens, special).is_ok_and(|read| read == text);
        read(true) || read(false)
    });
    let tokens = match own {
        Some(tokens) => tokens.clone(),
        None => policy.read(&laid_out).map_err(here)?,
    };
    if tokens.is_empty() {
        return Err((source.place, format!("prompt '{}' has no tokens", source.id)));
    }
    let prompt = Prompt { id: source.id.clone(), text, tokens, asked };
    let mut samples = Vec::with_capacity(source.found.len());
    for (i, found) in source.found.iter().enumerate() {
        let (tokens, from) = tokens_of(policy, found).map_err(at(found.place))?;
        let length = prompt.tokens.len() + tokens.len();
        if let Some(context) = lay_out.context.filter(|context| length > *context) {
            let problem = format!(
                "sample {i} of prompt '{}' has {length} tokens with the prompt, more than the context of {context}: remove or shorten it",
                source.id
            );
            return Err((found.place, problem));
        }
        samples.push((Ready::new(found, tokens), from));
    }
    Ok((prompt, Some(format), samples))
}

impl Ready {
    fn new(found: &Found, tokens: Vec<u32>) -> Self {
        let answer = &found.answer;
        Self { text: answer.text.clone(), tokens, reward: answer.reward, cut: answer.cut }
    }
}

fn in_vocabulary(policy: &Checkpoint, tokens: &[u32]) -> bool {
    tokens.iter().all(|token| (*token as usize) < policy.model.config().vocabulary)
}

/// The tokens of a response.
fn tokens_of(
    policy: &Checkpoint,
    Found { answer, by, .. }: &Found,
) -> Result<(Vec<u32>, Tokens), stackelberg_engine::Error> {
    let (text, tokenizer) = (&answer.text, &policy.tokenizer);
    let made = |from| Ok((tokenizer.encode(text, false)?, from));
    let Some(given) = &answer.tokens else { return made(Tokens::Made) };
    if !in_vocabulary(policy, given) {
        return made(Tokens::Replaced);
    }
    if by.as_deref() == Some(&*policy.fingerprint) {
        return Ok((given.clone(), Tokens::Given));
    }
    if given.is_empty() && !text.is_empty() {
        return made(Tokens::Made);
    }
    let mut tokens = &given[..];
    // A final EOS is not part of the response.
    if let Some((last, rest)) = tokens.split_last().filter(|_| !answer.cut)
        && policy.eos.contains(last)
    {
        tokens = rest;
    }
    let read = tokenizer.decode(tokens, false)?;
    if read != *text {
        if !read.starts_with(text.as_str()) {
            return made(Tokens::Replaced);
        }
        // The text was cut at a stop text: keep the tokens up to the end of the text.
        while let Some((_, rest)) = tokens.split_last() {
            if tokenizer.decode(rest, false)?.len() < text.len() {
                break;
            }
            tokens = rest;
        }
    }
    Ok((tokens.to_vec(), Tokens::Given))
}

/// The text between a prompt and its response in the policy's chat template. It identifies formatted chats.
pub(super) fn answers_turn(policy: &Checkpoint) -> Option<String> {
    const PROMPT: &str = "What is asked?";
    let prompt = stackelberg_engine::Prompt::Text(PROMPT.to_owned());
    let text = policy.lay_out(&prompt, None, TextFormat::Chat).ok()?;
    let (_, turn) = text.text().rsplit_once(PROMPT)?;
    Some(turn.trim().to_owned()).filter(|turn| !turn.is_empty())
}
