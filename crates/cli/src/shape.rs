//! `stackelberg shape`: reward shaping on JSON lines, without a model.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use stackelberg_data::Lines;
use stackelberg_learning::summary::Summary;
use stackelberg_shaping::{Confidence, Record, Report, Samples};

use crate::input::{note_terminal, stdin};
use crate::output;
use crate::shaping::ShapingArgs;

/// Shape rewards from JSON lines, without a model: one line of rewards in, one line of shaped rewards out.
///
/// Each input line is a JSON object with the rewards of one prompt's responses:
///
///   {"id": "a", "rewards": [0.1, 2.3, -0.4]}
///
/// "weights" may give the base policy's weight on each response, or "logits" the logits of a decoding
/// step's candidates; without either, the responses are samples of the base policy. Other fields are
/// passed on. The output line has the threshold m* with its certificate and confidence interval, the shaped
/// rewards, and the utility and KL of the follower.
#[derive(Args)]
pub(crate) struct Shape {
    /// JSON lines; - is standard input.
    #[arg(default_value_os_t = stdin())]
    file: PathBuf,

    /// Nominal level of the confidence interval for m*, between 0.5 and 0.99. The output has the level that few responses
    /// reach, which is lower.
    #[arg(long, default_value_t = 0.9, value_name = "P", allow_negative_numbers = true)]
    level: f64,

    /// Write to this file instead of standard output; the file appears when it is complete.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print a human-readable summary instead of JSON lines.
    #[arg(long)]
    summary: bool,

    #[command(flatten)]
    settings: ShapingArgs,
}

/// One prompt's rewards.
#[derive(Deserialize)]
struct Row {
    /// Returned exactly as it was written: a number may have more digits than any number type.
    id: Option<Box<RawValue>>,
    rewards: Vec<f64>,
    weights: Option<Vec<f64>>,
    logits: Option<Vec<f64>>,
}

impl Row {
    fn samples(&self) -> Result<Samples<'_>> {
        if self.id.as_ref().is_some_and(|id| id.get().starts_with(['[', '{', 't', 'f'])) {
            bail!("id: must be a string or a number");
        }
        Ok(Samples::given(&self.rewards, self.weights.as_deref(), self.logits.as_deref())?)
    }
}

/// The fields of a line, as they were written and in their order.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Each)
    }
}

impl Fields {
    /// Without those that are read, and those that the output has itself.
    fn others(self) -> Self {
        const OWN: [&str; 19] = [
            "id",
            "rewards",
            "weights",
            "logits",
            "threshold",
            "residual",
            "lowest_rewarded",
            "highest_unrewarded",
            "interval",
            "bound",
            "strength",
            "shaped",
            "fused",
            "chosen",
            "utility",
            "kl",
            "ess",
            "above",
            "warnings",
        ];
        Self(self.0.into_iter().filter(|(name, _)| !OWN.contains(&name.as_str())).collect())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    id: Option<&'a RawValue>,
    #[serde(flatten)]
    record: Record,
    /// The other fields of the input.
    #[serde(flatten)]
    others: Fields,
}

impl Shape {
    pub(crate) fn run(&self) -> Result<()> {
        let shaping = self.settings.shaping(None)?;
        let confidence = Confidence::new(self.level)?;
        note_terminal([&self.file], "rewards");
        let mut rows = Lines::open(&self.file)?;
        let mut out = output::open(self.out.as_deref())?;
        if self.summary {
            let mut summary = Summary::new(shaping, self.settings.kl_budget);
            while let Some(row) = rows.next_json::<Row>()? {
                let added = row.samples().and_then(|samples| Ok(summary.add(&samples)?));
                added.map_err(|e| rows.wrong(&e))?;
            }
            if summary.is_empty() {
                bail!("{} has no lines: nothing to summarise", rows.name());
            }
            write!(out, "{summary}").context("cannot write the summary")?;
        } else {
            while let Some(row) = rows.next_json::<Row>()? {
                let samples = row.samples().map_err(|e| rows.wrong(&e))?;
                let report = Report::new(&shaping, &samples, self.settings.kl_budget, Some(&confidence))
                    .map_err(|e| rows.wrong(&e))?;
                let others = rows.json::<Fields>()?.others();
                let record = Record::new(&report, row.logits.as_deref());
                let line = Line { id: row.id.as_deref(), record, others };
                serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from)?;
                out.write_all(b"\n").context("cannot write the output")?;
            }
        }
        output::finish(out)
    }
}
