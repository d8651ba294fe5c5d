//! Selects the prompt format for a policy, with warnings if a reward was trained on another one.

use stackelberg_data::Prompt;
use stackelberg_data::words::count;
use stackelberg_decoding::{Guidance, Policy};
use stackelberg_engine::reward::{TextFormat, ValueHead};
use stackelberg_engine::{Reward, TextProcessor};

/// The prompt format: the requested one, else the one that the value head or the reward was trained on, else the model's
/// chat template if it has one, else raw. Also returns warnings for the user.
pub fn text_format(
    asked: Option<TextFormat>,
    policy: &TextProcessor,
    guidance: Guidance<'_>,
) -> (TextFormat, Vec<String>) {
    let chats = if policy.template.is_some() { TextFormat::Chat } else { TextFormat::Raw };
    let of_value = guidance.value.and_then(|value| value.text_format);
    let of_reward = || guidance.reward.map(|reward| reward.text_format(policy));
    let format = asked.or(of_value).or_else(of_reward).unwrap_or(chats);
    let mut warnings = Vec::new();
    let mut check = |what: &str, trained: Option<TextFormat>, base: Option<&str>| {
        if let Some(trained) = trained.filter(|trained| *trained != format) {
            warnings.push(format!(
                "{what} was trained on {trained} text but reads {format} text here, so it is less accurate"
            ));
        }
        if base.is_none() {
            warnings.push(format!("{what} does not state which model it was trained on"));
        }
    };
    if let Some(value) = guidance.value {
        check("the value head", value.text_format, value.base.as_deref());
    }
    for reward in guidance.reward.map_or(&[][..], Reward::each) {
        if let Reward::Head(head) = reward {
            check("the reward", Some(head.text_format), head.base.as_deref());
        }
    }
    for reward in guidance.reward.map_or(&[][..], Reward::each) {
        if let Reward::Model(model) = reward
            && format == TextFormat::Chat
            && !chats_alike(policy, model.checkpoint())
        {
            let warning = "the reward model's chat template differs from the policy's, whose tokens it reads: put chat: \
                           before its name to use its own template";
            warnings.push(warning.to_owned());
        }
    }
    (format, warnings)
}

/// A warning if a value head, which scores blocks, was trained on another reward than the one that makes the last choice.
pub fn other_reward(value: &ValueHead, name: &str, hash: &str) -> Option<String> {
    let (trained, of) = value.reward.as_ref()?;
    (of != hash).then(|| {
        let which = if trained == name {
            format!("another version of {name}")
        } else {
            format!("the reward {trained}")
        };
        format!(
            "the value head was trained on {which}: blocks are chosen by it, and the answer by {name}"
        )
    })
}

/// Whether two models format a chat in the same way.
fn chats_alike(one: &TextProcessor, other: &TextProcessor) -> bool {
    let chat = |checkpoint: &TextProcessor| {
        let prompt = Prompt::Text("What is asked?".to_owned());
        checkpoint
            .lay_out(&prompt, None, TextFormat::Chat)
            .ok()
            .map(|laid_out| laid_out.text().to_owned())
    };
    chat(one) == chat(other)
}

/// A warning if answers of up to `most` tokens to tokenized prompts may end early, because prompt and answer do not fit into
/// the policy's context or into that of a reward that reads the policy's tokens. Such answers end with `length`.
pub fn short_context<'a>(
    policy: &Policy,
    reward: Option<&Reward>,
    most: usize,
    prompts: impl Iterator<Item = &'a [u32]>,
) -> Option<String> {
    let own = policy.context();
    let (whose, context) = match reward.and_then(Reward::limit) {
        Some((path, context)) if context < own => (format!("reward {}", path.display()), context),
        _ => ("model".to_owned(), own),
    };
    let cut = |prompt: &&[u32]| prompt.len() < context && prompt.len() + most > context;
    let cut = prompts.filter(cut).count();
    (cut > 0).then(|| {
        format!(
            "the context of the {whose} limits {}: prompt and answer end at {context} tokens",
            count(cut, "answer")
        )
    })
}

/// Warnings about tokenized prompts (or other texts; `what` is one of them) in this format: those that begin with the same
/// special token twice, and raw ones that spell control tokens.
pub fn odd_tokens<'a>(
    policy: &TextProcessor,
    format: TextFormat,
    what: &str,
    texts: impl Iterator<Item = &'a [u32]>,
) -> Vec<String> {
    let mut odd = OddTokens::default();
    texts.for_each(|tokens| odd.add(policy, format, tokens));
    odd.warnings(what)
}

/// Collects texts for the warnings of [`odd_tokens`], where they are not all read at once.
#[derive(Debug, Default)]
pub struct OddTokens {
    /// The tokens with which texts begin twice, and the control tokens that raw texts spell: how many texts, and the first.
    twice: (usize, Option<String>),
    control: (usize, Option<String>),
}

impl OddTokens {
    /// Adds the tokens of a text in this format.
    pub fn add(&mut self, policy: &TextProcessor, format: TextFormat, tokens: &[u32]) {
        let (found, token) = match policy.begins_twice(tokens) {
            Some(token) => (&mut self.twice, token),
            None if format == TextFormat::Raw => match policy.spells_control(tokens) {
                Some(token) => (&mut self.control, token),
                None => return,
            },
            None => return,
        };
        found.0 += 1;
        found.1.get_or_insert(token);
    }

    /// At most one warning of each kind about all texts, each of which is a `what`.
    pub fn warnings(&self, what: &str) -> Vec<String> {
        let twice = self.twice.1.as_ref().map(|token| {
            let (s, their) = if self.twice.0 == 1 { ("s", "its") } else { ("", "their") };
            let many = count(self.twice.0, what);
            format!("{many} begin{s} with {token} twice: remove it from {their} text, or use another prompt format")
        });
        let control = self.control.1.as_ref().map(|token| {
            let s = if self.control.0 == 1 { "s" } else { "" };
            let many = count(self.control.0, what);
            format!(
                "{many} spell{s} control tokens such as {token}, which are read as such in the prompt format raw: use the \
                 format chat if they are no part of a layout"
            )
        });
        twice.into_iter().chain(control).collect()
    }
}
