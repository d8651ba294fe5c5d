//! The one list of settings: their names in files, requests and on the command line, and which methods use them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stackelberg_shaping::{Budget, Rule};

use crate::error::{Error, Result};
use crate::method::{Keep, Method};
use crate::perturbation::Perturbation;
use crate::settings::Settings;

use Method::{Args, Base, BestOfN, Blockwise, Cd, Follower, Particles, SoftBestOfN};

/// Methods that guide every step.
const STEPS: &[Method] = &[Args, Cd];
/// Methods that shape rewards. Controlled decoding adds values of shaped rewards, which are not shaped again.
const SHAPES: &[Method] = &[Args, Follower, Blockwise, Particles];
/// Methods that weigh rewards or values against the base policy.
const WEIGHS: &[Method] = &[Args, Cd, SoftBestOfN, Follower, Blockwise, Particles];
/// Methods that can weigh them by a KL budget.
const BUDGETS: &[Method] = &[Args, Cd, SoftBestOfN, Follower, Blockwise];
/// Methods that draw tokens from the whole vocabulary.
const DRAWS: &[Method] = &[Base, BestOfN, SoftBestOfN, Follower, Blockwise, Particles];
/// Methods that choose among several samples.
const CHOOSES: &[Method] = &[BestOfN, SoftBestOfN, Follower, Blockwise, Particles];
/// Methods that can stop drawing samples early.
const STOPS: &[Method] = &[BestOfN, Blockwise];
/// Methods that decode several continuations block by block.
const BLOCKS: &[Method] = &[Blockwise, Particles];
/// Methods that can: best-of-n does if it drops samples.
const CAN_BLOCK: &[Method] = &[BestOfN, Blockwise, Particles];
const REWARDS: &[Method] = &[Args, Cd, BestOfN, SoftBestOfN, Follower, Blockwise, Particles];
const ALL: &[Method] = &Method::ALL;

/// Generates [`Options`] and its conversions. Of each setting: name, type, its place in [`Settings`], and the methods that
/// use it.
macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $type:ty, $($place:ident).+, $methods:expr;)*) => {
        /// Settings as a file, a request or the command line gives them: each may be left out, and then has the method's
        /// default. [`Options::settings`] refuses those that the method does not use.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Options {
            /// Where the next token comes from.
            #[serde(with = "named", skip_serializing_if = "Option::is_none")]
            pub method: Option<Method>,
            $($(#[$meta])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)*
        }

        impl Options {
            /// The names of all settings besides the method, and the methods that use each.
            pub const FIELDS: &[(&str, &[Method])] = &[$((stringify!($name), $methods)),*];

            /// The names of the settings that are given, besides the method.
            pub fn given(&self) -> impl Iterator<Item = &'static str> {
                let given = [$((stringify!($name), self.$name.is_some())),*];
                given.into_iter().filter_map(|(name, given)| given.then_some(name))
            }

            /// These, and where they leave a setting out, that of `others`.
            #[must_use]
            pub fn or(self, others: Self) -> Self {
                Self { method: self.method.or(others.method), $($name: self.$name.or(others.$name)),* }
            }

            /// These, and where they leave a setting out, that of `others`, unless it has no effect together with the rest.
            #[must_use]
            pub fn extending(self, others: Self) -> Self {
                let all = self.clone().or(others);
                let mut settings = Settings::new(all.method.unwrap_or_default());
                all.apply(&mut settings);
                let kept = |name| uses(settings.method, name) && !outweighed(&settings, name);
                Self {
                    method: all.method,
                    $($name: if self.$name.is_some() || kept(stringify!($name)) { all.$name } else { None }),*
                }
            }

            /// Changes the settings that are given, whether or not their method uses them. A block that is not given is no
            /// longer than the answer.
            pub fn apply(&self, settings: &mut Settings) {
                $(if let Some(value) = &self.$name {
                    settings.$($place).+ = value.clone().into();
                })*
                if self.block.is_none() && settings.decodes_blocks() {
                    settings.block = settings.block.min(settings.max_new_tokens);
                }
            }

            /// All settings in force, also those that the method does not use.
            pub fn all(settings: &Settings) -> Self {
                Self {
                    method: Some(settings.method),
                    $($name: settings.$($place).+.clone().into(),)*
                }
            }

            /// The settings that the method uses; those of single tokens only where they have an effect.
            pub fn used(settings: &Settings) -> Self {
                let mut options = Self::all(settings).without_neutral();
                $(if !$methods.contains(&settings.method) || outweighed(settings, stringify!($name)) {
                    options.$name = None;
                })*
                options
            }
        }
    };
}

options! {
    /// The shaping rule.
    #[serde(with = "named")]
    shaping: Rule, shaping.rule, SHAPES;
    /// The strength `lambda = 1/beta`.
    strength: f64, shaping.strength, WEIGHS;
    /// The bound `B`.
    bound: f64, shaping.bound, SHAPES;
    /// A KL budget in nats, in place of the bound (or strength).
    kl_budget: f64, kl_budget, BUDGETS;
    /// Steepness of the soft rules.
    alpha: f64, shaping.alpha, SHAPES;
    /// Largest shaped reward of the rule cap.
    cap: f64, shaping.cap, SHAPES;
    /// Largest factor by which the rule minmax stretches rewards.
    stretch: f64, shaping.stretch, SHAPES;
    /// Quantile of the rewards that par and log-sigmoid subtract.
    ref_quantile: f64, shaping.ref_quantile, SHAPES;
    /// Which bound and exponent take effect.
    #[serde(with = "named")]
    budget: Budget, shaping.budget, SHAPES;
    /// Largest exponent in the budget reference-offline, in nats.
    exponent_cap: f64, shaping.exponent_cap, SHAPES;
    /// Candidates per step. Methods that do not guide steps show them in their traces.
    candidates: usize, candidates, ALL;
    /// Temperature of the log-probabilities that cd adds values to.
    policy_temperature: f64, policy_temperature, &[Cd];
    /// Beams of cd.
    beams: usize, beams, &[Cd];
    /// Exponent of the length by which beams are ranked.
    length_penalty: f64, length_penalty, &[Cd];
    /// Answers to choose from, continuations of a block, or particles.
    samples: usize, samples, CHOOSES;
    /// Price of a token in reward units, at which drawing samples stops.
    token_price: f64, token_price, STOPS;
    /// Fraction of the samples under way that is dropped at the end of each block.
    reject: f64, reject, &[BestOfN];
    /// Tokens of a block.
    block: usize, block, CAN_BLOCK;
    /// Which continuation of a block is kept; of particles, which answer at the end.
    #[serde(with = "named")]
    keep: Keep, keep, BLOCKS;
    /// Most new tokens.
    max_new_tokens: usize, max_new_tokens, ALL;
    /// Sampling temperature; 0 is greedy.
    temperature: f64, sampling.temperature, ALL;
    /// Only the so many most likely tokens.
    top_k: usize, sampling.top_k, DRAWS;
    /// Only the most likely tokens that hold this much mass.
    top_p: f64, sampling.top_p, DRAWS;
    /// Only tokens at least this likely, relative to the likeliest.
    min_p: f64, sampling.min_p, DRAWS;
    /// The factor by which logits of tokens already written are divided.
    repetition_penalty: f64, sampling.repetition_penalty, ALL;
    /// The random seed.
    seed: u64, seed, ALL;
    /// Texts that end the answer.
    stop: Vec<String>, stop, ALL;
    /// Whether to write on after a token that ends the text.
    no_eos: bool, no_eos, ALL;
    /// Subtracted from the logits of tokens already written.
    presence_penalty: f64, sampling.presence_penalty, ALL;
    /// Subtracted from the logits of tokens already written, for each time.
    frequency_penalty: f64, sampling.frequency_penalty, ALL;
    /// Added to the logits of these tokens.
    logit_bias: BTreeMap<u32, f64>, logit_bias, ALL;
    /// Least tokens of the answer.
    min_tokens: usize, min_tokens, ALL;
    /// Tokens that end the answer.
    stop_tokens: Vec<u32>, stop_tokens, ALL;
    /// Whether what ended the answer is part of it.
    include_stop: bool, include_stop, ALL;
    /// Likeliest tokens that steps tell with their log-probabilities.
    log_probs: usize, log_probs, ALL;
    /// What is done to rewards before they are shaped.
    #[serde(with = "named", alias = "stress")]
    perturbation: Perturbation, perturbation, REWARDS;
    /// Tokens to a segment.
    score_every: usize, score_every, STEPS;
    /// Least entropy over the candidates at which rewards are computed, in nats.
    #[serde(alias = "min_entropy")]
    entropy_gate: f64, entropy_gate, STEPS;
    /// Whether rewards are left out where they provably cannot change the choice.
    skip: bool, skip, STEPS;
}

impl Options {
    /// The names of the settings of a shaping.
    pub const SHAPING: [&str; 9] = [
        "shaping",
        "strength",
        "bound",
        "alpha",
        "cap",
        "stretch",
        "ref_quantile",
        "budget",
        "exponent_cap",
    ];

    /// Without those of single tokens that have no effect: so records that were made before these settings existed still
    /// match.
    #[must_use]
    pub fn without_neutral(self) -> Self {
        Self {
            presence_penalty: self.presence_penalty.filter(|penalty| *penalty != 0.0),
            frequency_penalty: self.frequency_penalty.filter(|penalty| *penalty != 0.0),
            logit_bias: self.logit_bias.filter(|bias| !bias.is_empty()),
            min_tokens: self.min_tokens.filter(|tokens| *tokens != 0),
            stop_tokens: self.stop_tokens.filter(|tokens| !tokens.is_empty()),
            include_stop: self.include_stop.filter(|include| *include),
            log_probs: self.log_probs.filter(|tokens| *tokens != 0),
            ..self
        }
    }

    /// The settings, with the method's defaults for what is not given. Ranges are checked by [`Settings::check`].
    ///
    /// # Errors
    /// A setting is given that the method does not use.
    pub fn settings(&self) -> Result<Settings> {
        let method = self.method.unwrap_or_default();
        let unused = |name: &&str| !uses(method, name);
        if let Some(field) = self.given().find(unused) {
            return Err(Error::Unused { field, method });
        }
        let mut settings = match (method, self.score_every) {
            (Args, Some(tokens @ 2..)) => Settings::segments(tokens),
            _ => Settings::new(method),
        };
        // A strength or a bound replaces the default budget.
        if self.strength.is_some() || self.bound.is_some() {
            settings.kl_budget = None;
        }
        self.apply(&mut settings);
        if let Some(field) = self.given().find(|name| outweighed(&settings, name)) {
            return Err(match field {
                "token_price" => Error::UnusedByDraw { field },
                "block" => Error::UnusedWithoutReject { field },
                field => Error::UnusedByBest { field },
            });
        }
        Ok(settings)
    }
}

/// Whether a setting has no effect on blocks: where the highest score wins, however scores are shaped and weighed; where a
/// continuation is drawn, the price at which drawing stops; where best-of-n drops no samples, their length.
fn outweighed(settings: &Settings, name: &str) -> bool {
    if settings.method == BestOfN {
        return name == "block" && !settings.decodes_blocks();
    }
    let of_best = name == "token_price";
    let of_draw = name == "kl_budget" || Options::SHAPING.contains(&name);
    settings.method == Blockwise && if settings.keep == Keep::Best { of_draw } else { of_best }
}

/// Whether a method uses the setting of this name.
fn uses(method: Method, name: &str) -> bool {
    Options::FIELDS.iter().any(|(field, methods)| *field == name && methods.contains(&method))
}

/// Settings are written as [`Options`]: only what the method uses.
impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        Options::used(self).serialize(to)
    }
}

/// Settings are read as [`Options`]: what the method does not use is refused.
impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        Options::deserialize(from)?.settings().map_err(serde::de::Error::custom)
    }
}

/// Writes and reads a value by its name.
mod named {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> std::result::Result<Option<T>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        name.map(|name| name.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn what_a_method_does_not_use_is_refused() {
        for (method, field, value) in [
            ("base", "strength", "1"),
            ("base", "perturbation", "\"reversed\""),
            ("args", "top_p", "0.5"),
            ("args", "top_k", "5"),
            ("args", "samples", "5"),
            ("args", "beams", "5"),
            ("cd", "shaping", "\"hard\""),
            ("best-of-n", "strength", "1"),
            ("best-of-n", "skip", "false"),
            ("soft-best-of-n", "bound", "1"),
            ("follower", "score_every", "4"),
            ("best-of-n", "block", "4"),
            ("particles", "kl_budget", "1"),
            ("particles", "token_price", "1"),
            ("follower", "token_price", "1"),
            ("follower", "reject", "0.5"),
            ("blockwise", "reject", "0.5"),
        ] {
            let text = format!("{{\"method\":\"{method}\",\"{field}\":{value}}}");
            let read = serde_json::from_str::<Settings>(&text);
            let said = read.map(|_| String::new()).unwrap_or_else(|error| error.to_string());
            assert!(said.starts_with(&format!("{field} has no effect with method {method}")), "{said}");
        }
    }

    #[test]
    fn the_best_continuation_needs_no_shaping() {
        for given in ["strength", "bound", "kl_budget"] {
            let text = format!("{{\"method\":\"blockwise\",\"{given}\":1");
            let read = |rest: &str| serde_json::from_str::<Settings>(&format!("{text}{rest}}}"));
            let said = read("").map(|_| String::new()).unwrap_or_else(|error| error.to_string());
            let expected = format!(
                "{given} has no effect if the best continuation is kept: leave it out, or set keep to draw"
            );
            assert_eq!(said, expected);
            assert!(read(",\"keep\":\"draw\"").is_ok());
        }
        let text = r#"{"method":"best-of-n","block":4,"reject":0.5}"#;
        assert!(serde_json::from_str::<Settings>(text).is_ok_and(|settings| settings.decodes_blocks()));
        let text = r#"{"method":"blockwise","keep":"draw","token_price":0.1}"#;
        let said = serde_json::from_str::<Settings>(text)
            .map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(
            said,
            "token_price has no effect if a continuation is drawn: leave it out, or set keep to best"
        );
    }

    #[test]
    fn settings_of_every_method_are_read_back() -> Outcome {
        for method in Method::ALL {
            let mut settings = Settings { seed: u64::MAX, max_new_tokens: 7, ..Settings::new(method) };
            settings.sampling.temperature = 0.1 + 0.2;
            settings.stop = vec!["x".to_owned()];
            let text = serde_json::to_string(&settings)?;
            assert_eq!(serde_json::from_str::<Settings>(&text)?, settings, "{text}");
            if method == BestOfN {
                (settings.reject, settings.block) = (0.25, 3);
                let text = serde_json::to_string(&settings)?;
                assert_eq!(serde_json::from_str::<Settings>(&text)?, settings, "{text}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_left_out_has_the_default_of_the_method() -> Outcome {
        for method in Method::ALL {
            let read: Settings = serde_json::from_str(&format!("{{\"method\":\"{method}\"}}"))?;
            assert_eq!(read, Settings::new(method));
        }
        assert_eq!(serde_json::from_str::<Settings>("{}")?.method, Method::Args);
        assert_eq!(serde_json::from_str::<Settings>("{}")?.kl_budget, Some(0.3));
        for given in ["strength", "bound"] {
            let replaced: Settings = serde_json::from_str(&format!("{{\"{given}\":2}}"))?;
            assert_eq!(replaced.kl_budget, None);
        }
        let segments: Settings = serde_json::from_str("{\"score_every\":8}")?;
        assert_eq!((segments.kl_budget, segments.shaping.rule), (None, Rule::Raw));
        assert!(serde_json::from_str::<Settings>("{\"beta\":1}").is_err());
        Ok(())
    }

    #[test]
    fn a_setting_has_one_place() {
        // Every setting of `Settings` is reached: two different ones differ in their options.
        let one = Options::all(&Settings::default());
        let names: Vec<_> = one.given().collect();
        assert_eq!(names.len() + 1, Options::FIELDS.len(), "all but the KL budget have a default");
        assert!(!names.contains(&"kl_budget"));
    }
}
