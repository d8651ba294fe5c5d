//! The settings to compare, as an experiment's file.

use stackelberg_decoding::most;
use stackelberg_engine::KvDtype;
use stackelberg_evaluation::compare::Bootstrap;
use toml::{Table, Value};

use crate::error::{Error, Result, invalid};
use crate::file::Policy;

/// The fewest prompts: with fewer there are no intervals.
pub const FEWEST_PROMPTS: usize = Bootstrap::FEWEST;
/// The most prompts.
pub const MOST_PROMPTS: usize = 1000;
/// The largest cost of an answer, as a multiple of its tokens.
pub const MOST_COST: usize = 64;

/// Tokens of a block, and of a segment.
const BLOCK: usize = 16;
/// KL budgets of ARGS, in nats per token.
const TOKEN_BUDGETS: &[f64] = &[0.1, 0.3, 1.0];
/// KL budgets of ARGS by segments, in nats per segment.
const SEGMENT_BUDGETS: &[f64] = &[0.3, 1.0, 3.0];

/// What to tune.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// The policy.
    pub policy: Policy,
    /// The reward that guides.
    pub reward: String,
    /// Rewards that only measure. The first one decides.
    pub held_out: Vec<String>,
    /// A known set of prompts or a file.
    pub prompts: String,
    /// The number of prompts, from the first one: [`FEWEST_PROMPTS`] to [`MOST_PROMPTS`].
    pub limit: usize,
    /// Tokens that an answer may run through the policy, as a multiple of its length: 2 to [`MOST_COST`].
    pub cost: usize,
    /// Maximum new tokens.
    pub max_new_tokens: usize,
    /// Sampling temperature, above 0.
    pub temperature: f64,
    /// The nucleus of the methods that sample from the whole vocabulary.
    pub top_p: f64,
    /// The random seed.
    pub seed: u64,
    /// Sequences decoded in parallel (batch size).
    pub batch_size: usize,
    /// Whether to compare one setting of each kind only.
    pub quick: bool,
}

#[cfg(test)]
impl Tuning {
    /// A tuning of the default model under a built-in reward.
    pub(super) fn example() -> Self {
        Self {
            policy: Policy::default(),
            reward: "harmless".to_owned(),
            held_out: vec!["harmless-minilm".to_owned()],
            prompts: "mt-bench".to_owned(),
            limit: 20,
            cost: 8,
            max_new_tokens: 64,
            temperature: 0.7,
            top_p: 0.9,
            seed: 3,
            batch_size: 8,
            quick: false,
        }
    }
}

impl Tuning {
    /// The experiment's file (TOML). `stackelberg experiment` reads it, too.
    ///
    /// # Errors
    /// A number is out of range.
    pub fn file(&self) -> Result<String> {
        for (field, value, least, most) in [
            ("limit", self.limit, FEWEST_PROMPTS, MOST_PROMPTS),
            ("cost", self.cost, 2, MOST_COST),
            ("max_new_tokens", self.max_new_tokens, 1, most::NEW_TOKENS),
        ] {
            if !(least..=most).contains(&value) {
                return invalid(format!("{field}: {value} is not between {least} and {most}"));
            }
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return invalid("temperature: it must be above 0, so that samples differ");
        }
        let mut file = Table::new();
        let title =
            format!("{} under {}: which method, which strength?", self.policy.model, self.reward);
        file.insert("name".to_owned(), title.into());
        let about = "Written by `stackelberg tune`. `stackelberg experiment run` reads this file, too.";
        file.insert("about".to_owned(), about.into());
        file.insert("seeds".to_owned(), vec![Value::Integer(whole("seed", self.seed)?)].into());
        file.insert("traces".to_owned(), integer(self.limit));
        file.insert("policy".to_owned(), self.policy()?.into());
        let held_out: Vec<Value> = self.held_out.iter().map(|name| name.as_str().into()).collect();
        let rewards = [("guide", self.reward.as_str().into()), ("held_out", held_out.into())];
        file.insert("rewards".to_owned(), table(rewards).into());
        let prompts = table([("from", self.prompts.as_str().into()), ("limit", integer(self.limit))]);
        file.insert("prompts".to_owned(), vec![Value::from(prompts)].into());
        let decoding = table([
            ("max_new_tokens", integer(self.max_new_tokens)),
            ("temperature", self.temperature.into()),
            ("top_p", self.top_p.into()),
            ("batch_size", integer(self.batch_size)),
        ]);
        file.insert("decoding".to_owned(), decoding.into());
        let methods: Vec<Value> = self.methods().into_iter().map(Value::from).collect();
        file.insert("methods".to_owned(), methods.into());
        toml::to_string(&file)
            .map_err(|error| Error::Invalid(format!("cannot write the experiment: {error}")))
    }

    fn policy(&self) -> Result<Table> {
        let policy = &self.policy;
        let mut table = table([
            ("model", policy.model.as_str().into()),
            ("dtype", policy.dtype().to_string().into()),
            ("device", policy.device.to_string().into()),
        ]);
        if policy.kv_dtype != KvDtype::default() {
            table.insert("kv_dtype".to_owned(), policy.kv_dtype.to_string().into());
        }
        if let Some(tokenizer) = &policy.tokenizer {
            table.insert("tokenizer".to_owned(), tokenizer.as_str().into());
        }
        if let Some(states) = &policy.states {
            table.insert("states".to_owned(), states.as_str().into());
        }
        if let Some(format) = policy.prompt_format {
            table.insert("prompt_format".to_owned(), format.to_string().into());
        }
        if let Some(system) = &policy.system {
            table.insert("system".to_owned(), system.as_str().into());
        }
        if !policy.template_args.is_empty() {
            let refused =
                |error| Error::Invalid(format!("template_args: TOML cannot have a value: {error}"));
            let args = Value::try_from(&policy.template_args).map_err(refused)?;
            table.insert("template_args".to_owned(), args);
        }
        Ok(table)
    }

    /// The entries of `[[methods]]`, each within the cost.
    fn methods(&self) -> Vec<Table> {
        let mut methods = vec![entry("best-of-n", [("samples", integer(self.cost))])];
        let blocks: &[usize] = if self.quick { &[BLOCK] } else { &[BLOCK, 2 * BLOCK] };
        // A block as long as the answer is best-of-n.
        let blocks: Vec<usize> =
            blocks.iter().copied().filter(|&block| block < self.max_new_tokens).collect();
        if !self.quick && self.cost >= 4 {
            methods.push(entry("best-of-n", [("samples", integer(self.cost / 2))]));
        }
        for block in blocks {
            let own = [("samples", integer(self.cost)), ("block", integer(block))];
            methods.push(entry("blockwise", own));
        }
        // The chosen token is run once more than its look-ahead.
        let candidates = (self.cost - 1).max(2);
        let budgets = |all: &[f64]| -> Value {
            let middle = &all[1..2];
            let budgets = if self.quick { middle } else { all };
            budgets.iter().copied().map(Value::from).collect::<Vec<_>>().into()
        };
        let guided = |budgets: Value| {
            [
                ("candidates", integer(candidates)),
                ("shapings", vec![Value::from("raw")].into()),
                ("kl_budgets", budgets),
            ]
        };
        methods.push(entry("args", guided(budgets(TOKEN_BUDGETS))));
        if self.max_new_tokens > BLOCK {
            let mut segments = entry("args", guided(budgets(SEGMENT_BUDGETS)));
            segments.insert("score_every".to_owned(), integer(BLOCK));
            methods.push(segments);
        }
        methods
    }
}

fn entry<const N: usize>(method: &str, own: [(&str, Value); N]) -> Table {
    let mut entry = table(own);
    entry.insert("method".to_owned(), method.into());
    entry
}

fn table<const N: usize>(fields: [(&str, Value); N]) -> Table {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn integer(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn whole(field: &str, number: u64) -> Result<i64> {
    match i64::try_from(number) {
        Ok(number) => Ok(number),
        Err(_) => invalid(format!("{field}: {number} is more than {}", i64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cost::most_tokens_run;
    use crate::file::Experiment;

    fn read(tuning: &Tuning) -> Experiment {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tune.toml");
        std::fs::write(&file, tuning.file().unwrap()).unwrap();
        Experiment::read(&file).unwrap()
    }

    #[test]
    fn the_file_is_an_experiment_within_the_cost() {
        for (cost, quick, settings) in [(8, false, 11), (2, false, 10), (64, false, 11), (8, true, 5)] {
            let tuning = Tuning { cost, quick, ..Tuning::example() };
            let experiment = read(&tuning);
            let all = experiment.all_settings();
            let sweep: usize = experiment.first_stages().iter().map(|(_, of)| of.len()).sum();
            assert_eq!(sweep, settings, "{cost} {quick}");
            for setting in all {
                let tokens = most_tokens_run(&setting.settings);
                // Two candidates and the chosen token are the least that guides.
                assert!(tokens <= cost.max(3) * 64, "{setting}: {tokens}");
            }
            assert_eq!((experiment.seeds, experiment.traces), (vec![3], 20));
        }
    }

    #[test]
    fn what_is_asked_of_the_policy_is_in_the_file() {
        let args = r#"{"enable_thinking": false, "n": 3, "date": "today", "list": [1, {"a": "b"}]}"#;
        let template_args: BTreeMap<_, _> = serde_json::from_str(args).unwrap();
        let policy = Policy {
            model: "a \"quoted\" \\ name\n".to_owned(),
            system: Some("Be brief.\t'".to_owned()),
            prompt_format: Some("raw".parse().unwrap()),
            template_args: template_args.clone(),
            ..Policy::default()
        };
        let experiment = read(&Tuning { policy, reward: "a*0.7+'b'".to_owned(), ..Tuning::example() });
        assert_eq!(experiment.policy.model, "a \"quoted\" \\ name\n");
        assert_eq!(experiment.policy.system.as_deref(), Some("Be brief.\t'"));
        assert_eq!(serde_json::json!(experiment.policy.template_args), serde_json::json!(template_args));
        assert_eq!(experiment.rewards.guide, "a*0.7+'b'");
        assert!(experiment.policy.prompt_format.is_some_and(|format| format.name() == "raw"));
    }

    #[test]
    fn short_answers_have_no_blocks() {
        let experiment = read(&Tuning { max_new_tokens: 16, ..Tuning::example() });
        let methods: Vec<String> = experiment.methods.iter().map(|m| m.method.to_string()).collect();
        assert_eq!(methods, ["best-of-n", "best-of-n", "args"]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let refused = |tuning: Tuning| tuning.file().unwrap_err().to_string();
        for (tuning, words) in [
            (Tuning { limit: 9, ..Tuning::example() }, "limit: 9 is not between 10 and 1000"),
            (Tuning { cost: 1, ..Tuning::example() }, "cost: 1 is not between 2 and 64"),
            (Tuning { max_new_tokens: 0, ..Tuning::example() }, "max_new_tokens: 0 is not between 1"),
            (Tuning { temperature: 0.0, ..Tuning::example() }, "temperature: it must be above 0"),
            (Tuning { temperature: f64::NAN, ..Tuning::example() }, "temperature: it must be above 0"),
            (Tuning { seed: u64::MAX, ..Tuning::example() }, "seed: 18446744073709551615 is more than"),
        ] {
            assert!(refused(tuning).contains(words), "{words}");
        }
    }
}
