//! Remote rewards and the chat client against programs and local servers.

mod chat;
mod engine;
mod http;
mod policy;
mod policy_speed;
mod program;
mod reward_check;
mod server;
mod states;

use stackelberg_engine::Prompt;
use stackelberg_engine::reward::Exchange;

fn exchanges<'a>(prompt: &'a Prompt, answers: &[&'a str]) -> Vec<Exchange<'a>> {
    answers.iter().map(|answer| Exchange { prompt, answer }).collect()
}
