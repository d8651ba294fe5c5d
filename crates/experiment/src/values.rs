//! Trains the value heads of an experiment: rollouts first, then one head per shaping.

use std::path::Path;

use stackelberg_engine::Reward;
use stackelberg_learning::Error as LearningError;
use stackelberg_learning::rollouts::{self, Dataset, Identity, Part, Plan, collect};
use stackelberg_learning::value::{self, checkpoint_of, train_to_file};
use stackelberg_registry::layout;
use stackelberg_shaping::{Budget, Shaping};

use crate::error::{Context, Error, Result};
use crate::file::Values;
use crate::lab::Lab;
use crate::observer::Observer;
use crate::plan::ValueHead;
use crate::sets::prompts_of;

/// Batch size of the rollouts.
const BATCH: usize = 40;
/// Prompts per shard of the rollouts.
const PROMPTS_PER_SHARD: usize = 16;

/// Trains the missing value heads; missing rollouts are sampled first.
pub(crate) fn train(lab: &Lab<'_>, heads: &[ValueHead], observer: &mut dyn Observer) -> Result<()> {
    let mut missing: Vec<ValueHead> = Vec::new();
    for &head in heads {
        if !missing.contains(&head) && !lab.value_file(head).exists() {
            missing.push(head);
        }
    }
    let (Some(values), false) = (&lab.experiment.values, missing.is_empty()) else { return Ok(()) };
    let Some(folder) = lab.values.clone() else { return Ok(()) };
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let dataset = draw(lab, values, &folder.join("rollouts"), observer)?;
    missing.into_iter().try_for_each(|head| train_head(lab, values, head, &dataset, observer))
}

/// Samples the missing rollouts.
fn draw(lab: &Lab<'_>, values: &Values, folder: &Path, observer: &mut dyn Observer) -> Result<Dataset> {
    let policy = &lab.experiment.policy;
    let default = rollouts::default_settings();
    let plan = Plan {
        policy: lab.policy,
        model: policy.model.clone(),
        dtype: policy.spec().recorded_dtype(),
        device: lab.device.clone(),
        reward: Some(Identity { name: lab.guide_name.clone(), hash: lab.guide_hash.clone() }),
        format: lab.format,
        system: policy.system.as_deref(),
        settings: stackelberg_decoding::Settings {
            samples: values.samples,
            max_new_tokens: values.max_new_tokens,
            ..default
        },
        hidden: true,
        prompts_per_shard: PROMPTS_PER_SHARD,
    };
    let prompts = plan.lay_out(&prompts_of(lab.registry, &values.prompts)?)?;
    let tokens = prompts.iter().map(|prompt| &prompt.tokens[..]);
    for warning in layout::odd_tokens(lab.policy, plan.format, "prompt", tokens) {
        observer.warning(&warning);
    }
    let dataset = Dataset::create(folder, plan.manifest(&prompts))?;
    if dataset.missing().is_empty() {
        return Ok(dataset);
    }
    let (guide, how) = (Some(&lab.guide), (Part::ALL, BATCH));
    let mut told = observer.rollouts(&dataset);
    let outcome = collect(&dataset, lab.policy, guide, &prompts, &plan.settings, how, &mut *told);
    drop(told);
    match outcome {
        Err(LearningError::Decoding(stackelberg_decoding::Error::Stopped)) => {
            Err(Error::Interrupted("interrupted".to_owned()))
        }
        outcome => Ok(outcome.map(|()| dataset)?),
    }
}

fn train_head(
    lab: &Lab<'_>,
    values: &Values,
    head: ValueHead,
    dataset: &Dataset,
    observer: &mut dyn Observer,
) -> Result<()> {
    let shaping = Shaping {
        rule: head.rule,
        strength: values.strength,
        bound: values.bound,
        alpha: values.alpha,
        cap: values.cap,
        budget: if head.reference { Budget::ReferenceOffline } else { Budget::Paper },
        ..Shaping::default()
    };
    let settings = value::Settings {
        epochs: values.epochs,
        validation: values.validation,
        ..value::Settings::new(shaping)
    };
    let (out, command) =
        (lab.value_file(head), stackelberg_data::words::command_line(&lab.provenance.command));
    let resume = checkpoint_of(&out).exists();
    let mut told = observer.training(&settings);
    let so_far = match &lab.guide {
        Reward::Head(head) => Ok(&**head),
        _ => Err(format!("'{}' is not a head on the policy's hidden states", lab.guide_name)),
    };
    match train_to_file(dataset, &settings, &out, resume, command, so_far, &mut *told) {
        Err(LearningError::Stopped) => Err(Error::Interrupted("interrupted".to_owned())),
        outcome => Ok(outcome.map(drop)?),
    }
}
