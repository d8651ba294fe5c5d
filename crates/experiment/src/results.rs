//! Assembles the report from the runs: series for the findings, answers and traces for the prompt browser.

use std::collections::HashMap;

use stackelberg_data::atomic;
use stackelberg_data::generations::Response;
use stackelberg_data::trace::{self, Scores};
use stackelberg_decoding::{Method, Perturbation};
use stackelberg_engine::Tokenizer;
use stackelberg_evaluation::compare::mean;
use stackelberg_evaluation::findings::{Findings, Series};
use stackelberg_evaluation::metrics::Measured;
use stackelberg_evaluation::report::{self, Answer, Histogram, Question, Report, Trace, TraceStep};

use crate::error::{Context, Error, Result};
use crate::lab::{Done, Lab};
use crate::plan::Setting;
use crate::stages::{all_settings, stages};
use crate::sweep::{Kept, measured, runs};

/// An answer gets a warning if its rep-4 is more than this many points above the base policy's.
const REPEATS_MORE: f64 = 20.0;
/// An answer gets a warning if its mean log-probability per token is more than this many nats below the base policy's.
const LESS_LIKELY: f64 = 1.0;

/// A setting whose runs are finished for all seeds.
struct Finished {
    setting: Setting,
    kept: bool,
    runs: Vec<Done>,
}

/// Writes the report of the finished runs: the HTML page, the findings as Markdown, and every table as CSV, Markdown and
/// LaTeX. Returns the opening sentences.
pub(crate) fn write(lab: &Lab<'_>, kept: &[Kept]) -> Result<Vec<String>> {
    let finished = finished(lab, kept)?;
    let report = assemble(lab, kept, &finished)?;
    let tables = lab.out.join("tables");
    std::fs::create_dir_all(&tables).with_context(|| format!("cannot make {}", tables.display()))?;
    for table in &report.tables {
        for (ending, text) in [
            ("csv", report::csv(table)),
            ("md", format!("## {}\n\n{}\n\n{}", table.title, table.note, report::markdown(table))),
            ("tex", report::latex(table)),
        ] {
            atomic::write(&tables.join(format!("{}.{ending}", table.name)), text.as_bytes())?;
        }
    }
    let findings = report::findings(&report);
    atomic::write(&lab.out.join("findings.md"), findings.as_bytes())?;
    let page = report::page(&report)?;
    atomic::write(&lab.out.join("report.html"), page.as_bytes())?;
    Ok(report.opening)
}

fn finished(lab: &Lab<'_>, kept: &[Kept]) -> Result<Vec<Finished>> {
    let mut finished = Vec::new();
    for setting in all_settings(lab, kept) {
        let Some(runs) = runs(lab, &setting)? else { continue };
        // Methods without a sweep are always shown.
        let swept = lab.experiment.guided().any(|methods| methods.group() == setting.group());
        let kept = Kept::of(kept, &setting.group());
        let kept = !swept || kept.is_some_and(|kept| setting.knob == Some(kept.knob));
        finished.push(Finished { setting, kept, runs });
    }
    Ok(finished)
}

fn assemble(lab: &Lab<'_>, kept: &[Kept], finished: &[Finished]) -> Result<Report> {
    let experiment = lab.experiment;
    let base = finished.first().ok_or_else(|| {
        let runs = lab.out.join("runs");
        Error::Invalid(format!(
            "the run of the base policy is not finished: run the experiment (other runs in {} have other settings)",
            runs.display()
        ))
    })?;
    let all = stages(experiment, kept).iter().map(|(_, settings)| settings.len()).sum::<usize>();
    let unfinished = (finished.len() < all)
        .then(|| format!("Unfinished: this report has {} of {all} settings.", finished.len()));
    let rewards = experiment.rewards.shown();
    let series = |f: &Finished| {
        let generated = generated(f, base);
        Series {
            group: match f.setting.knob {
                Some(_) => f.setting.group(),
                None => "without a strength".to_owned(),
            },
            curve: f.setting.curve(),
            perturbation: (f.setting.perturbation != Perturbation::None)
                .then(|| f.setting.perturbation.to_string()),
            kept: f.kept,
            vanilla: f.setting.rule == Some(experiment.sweep.shaping) && !f.setting.reference,
            generated,
            tokens_run: tokens_run(&f.runs).or(generated),
            scored: scored(f),
            ..measured(&f.setting, &f.runs)
        }
    };
    let series: Vec<Series> = finished.iter().map(series).collect();
    let findings = Findings::new(&series, &rewards, &experiment.sweep.limits());
    let (mut tables, mut charts) = (findings.tables(), findings.charts());
    if experiment.decoding.temperature() == 0.0 {
        // The KL of greedy text is not defined, so greedy experiments have no comparison at equal KL.
        tables.retain(|table| !table.name.starts_with("equal-kl"));
        charts.retain(|chart| !chart.name.ends_with("-by-kl"));
    }
    let shown: Vec<&Finished> =
        finished.iter().filter(|f| f.kept && f.setting.perturbation == Perturbation::None).collect();
    let mut browser = Browser::new(lab, &rewards, &shown)?;
    let histograms = browser.histograms(&shown);
    let questions = browser.questions(&shown);
    Ok(Report {
        title: experiment.name.clone(),
        about: experiment.about.trim().to_owned(),
        opening: unfinished.into_iter().chain(findings.opening()).collect(),
        findings: kept.iter().map(Kept::finding).chain(findings.sentences()).collect(),
        facts: lab.facts(),
        tables,
        charts,
        matrices: findings.matrices(),
        histograms,
        methods: shown.iter().map(|f| f.setting.curve()).collect(),
        traces: browser.traces,
        rewards: rewards.clone(),
        questions,
    })
}

/// The mean number of tokens generated per prompt. For methods that choose among samples, this is the number of samples
/// times the mean length of the base policy's answers, which the samples are drawn like.
fn generated(f: &Finished, base: &Finished) -> Option<f64> {
    let settings = &f.setting.settings;
    let (of, each) = match settings.method.chooses_answers() {
        true => (base, settings.samples as f64),
        false => (f, 1.0),
    };
    Some(each * mean_of(&of.runs, |response| response.record.tokens.map(|tokens| tokens as f64))?)
}

/// The mean number of tokens that were run through the policy per prompt; `None` for answers of older versions.
pub(crate) fn tokens_run(runs: &[Done]) -> Option<f64> {
    mean_of(runs, |response| response.record.tokens_run.map(|tokens| tokens as f64))
}

/// The mean number of candidates scored per prompt, for methods that score the candidates of each step.
fn scored(f: &Finished) -> Option<f64> {
    let settings = &f.setting.settings;
    let each_token = matches!(settings.method, Method::Args | Method::Cd) && settings.score_every == 1;
    let steps = |response: &Response| response.record.reward_calls.map(|steps| steps as f64);
    Some(settings.candidates as f64 * mean_of(&f.runs, steps).filter(|_| each_token)?)
}

/// The mean over all answers of all seeds; `None` if a value is missing.
fn mean_of(runs: &[Done], of: impl Fn(&Response) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = runs.iter().flat_map(|run| &run.responses).map(of).collect();
    values.filter(|values| !values.is_empty()).map(|values| mean(&values))
}

/// The prompts with the answers of each method and their traces.
struct Browser<'a> {
    lab: &'a Lab<'a>,
    rewards: &'a [String],
    /// Per method, the steps of the traced prompts.
    steps: Vec<HashMap<String, Vec<trace::TraceStep>>>,
    traces: Vec<Trace>,
}

impl<'a> Browser<'a> {
    fn new(lab: &'a Lab<'a>, rewards: &'a [String], shown: &[&Finished]) -> Result<Self> {
        // Steps that cannot be read are skipped; the answers do not depend on them.
        let steps = shown.iter().map(|f| Ok(trace::read(&f.runs[0].folder.join("trace.jsonl"))?.0));
        Ok(Self { lab, rewards, steps: steps.collect::<Result<_>>()?, traces: Vec::new() })
    }

    /// The answers to each prompt, with the first seed.
    fn questions(&mut self, shown: &[&Finished]) -> Vec<Question> {
        let mut questions = Vec::with_capacity(self.lab.prompts.len());
        let lab = self.lab;
        for (number, (id, prompt)) in lab.prompts.iter().enumerate() {
            let base = shown.first().map(|base| &base.runs[0].measured[number]);
            let mut answers = Vec::with_capacity(shown.len());
            for (method, f) in shown.iter().enumerate() {
                let run = &f.runs[0];
                let (response, measured) = (&run.responses[number], &run.measured[number]);
                answers.push(Some(self.answer(method, response, measured, base)));
            }
            questions.push(Question { id: id.clone(), prompt: prompt.readable(), answers });
        }
        questions
    }

    fn answer(
        &mut self,
        method: usize,
        response: &Response,
        measured: &Measured,
        base: Option<&Measured>,
    ) -> Answer {
        let mut warnings = response.record.warnings.clone();
        if let Some(base) = base.filter(|_| method > 0) {
            let more = measured.rep_4 - base.rep_4;
            if more > REPEATS_MORE {
                warnings.push(format!("rep-4 is {more:.0} points above the base policy's"));
            }
            let less = base.log_prob.zip(measured.log_prob).map(|(base, own)| base - own);
            if let Some(less) = less.filter(|less| *less > LESS_LIKELY) {
                warnings
                    .push(format!("{less:.1} nats per token less likely than the base policy's answer"));
            }
        }
        let values = response.record.method.as_deref() == Some("cd");
        let trace = self.steps[method].remove(&response.id).map(|steps| {
            self.traces.push(shown_trace(
                steps,
                &response.record.warnings,
                &self.lab.policy.tokenizer,
                values,
            ));
            self.traces.len() - 1
        });
        let reward = |name: &String| measured.rewards.get(name).copied();
        Answer {
            text: response.text.clone(),
            rewards: self.rewards.iter().map(reward).collect(),
            kl: measured.kl,
            warnings,
            trace,
        }
    }

    /// Histograms of the thresholds over the traced steps, for each method that has thresholds.
    fn histograms(&self, shown: &[&Finished]) -> Vec<Histogram> {
        let mut histograms = Vec::new();
        for (f, steps) in shown.iter().zip(&self.steps) {
            let thresholds: Vec<f64> =
                steps.values().flatten().filter_map(|line| line.threshold).collect();
            histograms.extend(histogram(&f.setting.curve(), &thresholds));
        }
        histograms
    }
}

fn histogram(method: &str, values: &[f64]) -> Option<Histogram> {
    const BINS: usize = 24;
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    if low >= high || values.is_empty() {
        return None;
    }
    let width = (high - low) / BINS as f64;
    let mut counts = vec![0; BINS];
    for value in values {
        counts[(((value - low) / width) as usize).min(BINS - 1)] += 1;
    }
    Some(Histogram {
        label: format!("thresholds m* of {method}"),
        x: "reward".to_owned(),
        edges: (0..=BINS).map(|edge| low + width * edge as f64).collect(),
        counts,
    })
}

fn shown_trace(
    steps: Vec<trace::TraceStep>,
    warnings: &[String],
    tokenizer: &Tokenizer,
    values: bool,
) -> Trace {
    let warning = |number: usize| {
        let begin = format!("token {}: ", number + 1);
        let said: Vec<&str> =
            warnings.iter().filter_map(|warning| warning.strip_prefix(&begin)).collect();
        (!said.is_empty()).then(|| said.join("; "))
    };
    let step = |(number, line): (usize, trace::TraceStep)| {
        let at = |token: u32| line.candidates.iter().position(|&candidate| candidate == token);
        let (chosen, base) = (at(line.chosen), at(line.base_choice));
        let (logits, rewards) = match line.scores {
            Scores::Rewards { logits, rewards } => (logits, rewards),
            Scores::Values { log_probs, values } => (log_probs, values),
        };
        TraceStep {
            text: tokenizer.decode(&[line.chosen], true).unwrap_or_default(),
            tokens: line.tokens,
            logits,
            rewards,
            threshold: line.threshold,
            shaped: line.shaped,
            fused: line.fused,
            chosen,
            base,
            warning: warning(number),
        }
    };
    Trace { values, steps: steps.into_iter().enumerate().map(step).collect() }
}
