//! What rollouts are drawn for and with: prompts laid out, and the manifest of their dataset.

use stackelberg_decoding::{Policy, Sampling, Settings};
use stackelberg_engine::reward::TextFormat;

use super::collect::Prompt;
use super::manifest::{Identity, Manifest, Prompts, settings};
use crate::error::Error;

/// Stop texts where a new turn begins.
pub const TURNS: [&str; 4] = ["\n\nHuman:", "\nHuman:", "\n\nUser:", "\nUser:"];

/// The paper's sampling of rollouts: temperature 0.7, top-p 0.9, 10 samples of at most 128 tokens, cut where a new turn
/// begins.
pub fn default_settings() -> Settings {
    Settings {
        samples: 10,
        max_new_tokens: 128,
        sampling: Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() },
        stop: TURNS.map(str::to_owned).to_vec(),
        ..Settings::default()
    }
}

/// All that decides the samples of a dataset.
#[derive(Clone)]
pub struct Plan<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its name.
    pub model: String,
    /// How its weights are kept.
    pub dtype: String,
    /// Where it runs; `None` for the CPU.
    pub device: Option<String>,
    /// The reward, if samples are scored.
    pub reward: Option<Identity>,
    /// How prompts are laid out.
    pub format: TextFormat,
    /// The system message.
    pub system: Option<&'a str>,
    /// How samples are drawn.
    pub settings: Settings,
    /// Whether hidden states are kept.
    pub hidden: bool,
    /// Prompts per shard.
    pub prompts_per_shard: usize,
}

impl Plan<'_> {
    /// Prompts as the policy reads them.
    ///
    /// # Errors
    /// The template refuses a prompt, which the error names.
    pub fn lay_out(
        &self,
        prompts: &[(String, stackelberg_engine::Prompt)],
    ) -> Result<Vec<Prompt>, Error> {
        let lay_out = |(id, prompt): &(String, stackelberg_engine::Prompt)| {
            let text = self.policy.lay_out(prompt, self.system, self.format)?;
            let tokens = self.policy.read(&text)?;
            let text = text.text().to_owned();
            Ok(Prompt { id: id.clone(), text, tokens, asked: Some(prompt.clone()) })
        };
        let named = |prompt: &(String, stackelberg_engine::Prompt)| {
            lay_out(prompt).map_err(|source: stackelberg_engine::Error| {
                let source = Box::new(source.into());
                stackelberg_decoding::Error::Prompt { id: prompt.0.clone(), source }.into()
            })
        };
        prompts.iter().map(named).collect()
    }

    /// The manifest of their dataset.
    pub fn manifest(&self, prompts: &[Prompt]) -> Manifest {
        let mut settings = settings(&self.settings, self.format, self.system);
        settings.insert("dtype".to_owned(), self.dtype.clone().into());
        if let Some(device) = &self.device {
            settings.insert("device".to_owned(), device.clone().into());
        }
        let template = self.policy.template.as_ref();
        if let Some(args) = template.map(|template| template.args()).filter(|args| !args.is_empty()) {
            settings.insert("template_args".to_owned(), serde_json::json!(args));
        }
        Manifest {
            format: Manifest::FORMAT.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: Identity { name: self.model.clone(), hash: self.policy.fingerprint() },
            reward: self.reward.clone(),
            hidden: self.policy.width().filter(|_| self.hidden),
            samples: Some(self.settings.samples),
            settings,
            prompts_per_shard: self.prompts_per_shard,
            prompts: Prompts::new(prompts.iter().map(|p| (p.id.as_str(), p.text.as_str()))),
        }
    }
}
