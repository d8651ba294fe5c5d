//! Shaped rewards in datasets of rollouts, and predicted utilities.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Map;
use stackelberg_learning::rollouts::{
    Dataset, Frontiers, Hidden, Identity, Manifest, Prompts, Row, Shaper,
};
use stackelberg_shaping::{Budget, Confidence, Report, Rule, Samples, Shaping};

use crate::common::Random;

/// Prompts with one reward, with equal rewards and with different rewards, three per shard.
fn rewards() -> Vec<(String, Vec<f64>)> {
    let mut random = Random::new(1);
    let prompt = |i: usize| {
        let rewards = match i {
            2 => vec![1.25],
            5 => vec![-0.5; 4],
            _ => (0..2 + i % 7).map(|_| random.normal()).collect(),
        };
        (format!("p{i}"), rewards)
    };
    (0..8).map(prompt).collect()
}

fn dataset(folder: &Path, prompts: &[(String, Vec<f64>)]) -> Dataset {
    let identity = |name: &str| Identity { name: name.to_owned(), hash: name.to_owned() };
    let manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        version: "0".to_owned(),
        model: identity("model"),
        reward: Some(identity("reward")),
        hidden: Some(2),
        samples: None,
        settings: Map::new(),
        prompts_per_shard: 3,
        prompts: Prompts::new(prompts.iter().map(|(id, _)| (id.as_str(), "text"))),
    };
    let dataset = Dataset::create(folder, manifest).unwrap();
    for shard in 0..dataset.manifest().shards() {
        let (mut rows, mut hidden) = (Vec::new(), Hidden::new(2));
        for (id, rewards) in &prompts[dataset.manifest().prompts_of(shard)] {
            for (sample, reward) in (0..).zip(rewards) {
                hidden.states.extend([half::f16::from_f32(sample as f32); 2]);
                hidden.offsets.push(hidden.offsets.len());
                rows.push(Row {
                    prompt_id: id.clone(),
                    sample,
                    prompt: "text".to_owned(),
                    response: format!("answer {sample}"),
                    tokens: vec![sample],
                    reward: Some(*reward),
                    finish_reason: "stop".to_owned(),
                    seed: u64::MAX,
                });
            }
        }
        dataset.write(shard, &rows, &hidden).unwrap();
    }
    dataset
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

fn shaper(rule: Rule, alpha: f64) -> Shaper {
    Shaper::new(Shaping { rule, alpha, ..Shaping::default() }, None, Some(0.9)).unwrap()
}

#[test]
fn columns_are_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), &rewards());
    for rule in [Rule::SrsStd, Rule::Raw, Rule::Hard] {
        assert_eq!(shaper(rule, 1.5).read(&dataset, &mut || ()).unwrap(), rewards());
        shaper(rule, 1.5).write(&dataset, &mut || ()).unwrap();
    }
    let (confidence, mut seen) = (Confidence::new(0.9).unwrap(), 0);
    for shard in dataset.iter() {
        let shard = shard.unwrap();
        assert_eq!(
            shard.shaped.iter().map(|c| c.rule).collect::<Vec<_>>(),
            [Rule::Raw, Rule::Hard, Rule::SrsStd]
        );
        assert!(shard.shaped(Rule::Srs).is_none() && shard.hidden().is_ok());
        let mut at = 0;
        for rows in shard.prompts() {
            let rewards: Vec<f64> = rows.iter().filter_map(|row| row.reward).collect();
            let samples = Samples::new(&rewards).unwrap();
            let here = at..at + rows.len();
            for columns in &shard.shaped {
                let shaping = Shaping { rule: columns.rule, alpha: 1.5, ..Shaping::default() };
                let report = Report::new(&shaping, &samples, None, Some(&confidence)).unwrap();
                assert_eq!(columns.values[here.clone()], report.shaped.values);
                assert_eq!(columns.settings["shaping"], columns.rule.name());
                assert_eq!(columns.settings["alpha"], 1.5);
                let Some(threshold) = report.shaped.threshold else {
                    assert_eq!(columns.thresholds, None);
                    continue;
                };
                let found = columns.thresholds.as_ref().unwrap();
                for i in here.clone() {
                    assert_eq!(found.values[i], threshold.value);
                    assert_eq!(found.low[i], report.interval.map(|i| i.low));
                    assert_eq!(found.high[i], report.interval.and_then(|i| i.high));
                }
            }
            at += rows.len();
            seen += 1;
        }
        assert_eq!(at, shard.rows.len());
    }
    assert_eq!(seen, 8);
}

#[test]
fn columns_are_added_and_replaced() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bare = dataset(one.path(), &rewards());
    let before = files(one.path());
    let steps = |dataset: &Dataset, steps: &[(Rule, f64)]| {
        steps.iter().for_each(|&(rule, alpha)| shaper(rule, alpha).write(dataset, &mut || ()).unwrap());
        files(dataset.folder())
    };
    let found = steps(&bare, &[(Rule::Srs, 3.0), (Rule::Hard, 1.0), (Rule::Srs, 1.0)]);
    // The result does not depend on the order of the calls and on repetition.
    let other = steps(
        &dataset(two.path(), &rewards()),
        &[(Rule::Srs, 1.0), (Rule::Hard, 1.0), (Rule::Hard, 1.0)],
    );
    assert_eq!(found, other);
    for (name, bytes) in before {
        assert_eq!(bytes != found[&name], name.ends_with(".parquet"), "{name}");
    }
    let shard = bare.read(1).unwrap();
    assert_eq!(shard.shaped.len(), 2);
    assert_eq!(shard.shaped(Rule::Srs).unwrap().settings["alpha"], 1.0);
}

/// A killed run leaves shards with new, with old and without shaped rewards, and a temporary file.
#[test]
fn a_killed_run_is_repaired() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let killed = dataset(folder.path(), &rewards());
    let expected = dataset(whole.path(), &rewards());
    shaper(Rule::Srs, 1.0).write(&expected, &mut || ()).unwrap();
    for (shard, alpha) in [(0, 1.0), (2, 7.0)] {
        let shard = killed.read(shard).unwrap();
        let columns = shaper(Rule::Srs, alpha).shape(&shard).unwrap();
        killed.add_shaped(shard, columns).unwrap();
    }
    fs::write(folder.path().join(".rollouts-00001.parquet-x.partial"), "half").unwrap();
    assert_eq!(killed.check(&mut || ()).unwrap().prompts, 8);
    shaper(Rule::Srs, 1.0).write(&killed, &mut || ()).unwrap();
    assert_eq!(files(folder.path()), files(whole.path()));
}

#[test]
fn what_cannot_be_shaped_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut prompts = rewards();
    let whole = dataset(folder.path(), &prompts);
    let before = files(folder.path());
    let path = folder.path().join("rollouts-00002.parquet");
    fs::write(&path, &before["rollouts-00002.parquet"][..200]).unwrap();
    let said =
        |dataset: &Dataset| shaper(Rule::Srs, 1.0).read(dataset, &mut || ()).unwrap_err().to_string();
    let broken = said(&whole);
    assert!(broken.contains("rollouts-00002.parquet: not a whole Parquet file"), "{broken}");
    assert!(broken.ends_with("delete the file and run the same rollout again to recreate it"));
    fs::remove_file(&path).unwrap();
    assert!(said(&whole).contains("1 of 3 shards are not there yet, the first is number 2"));

    // Columns with another number of rows.
    let columns = shaper(Rule::Srs, 1.0).shape(&whole.read(0).unwrap()).unwrap();
    let shard = whole.read(1).unwrap();
    assert_ne!(columns.values.len(), shard.rows.len());
    assert!(whole.add_shaped(shard, columns).unwrap_err().to_string().contains("shaped rewards has"));

    let at = |name: &str| folder.path().join(name);
    prompts[4].1[1] = f64::NAN;
    let nan = said(&dataset(&at("nan"), &prompts));
    assert!(
        nan.contains("rollouts-00001.parquet: the reward of sample 1 of prompt 'p4' is NaN"),
        "{nan}"
    );
    prompts[4].1[..2].copy_from_slice(&[-1e308, 1e308]);
    let wide = said(&dataset(&at("wide"), &prompts));
    assert!(wide.contains("rollouts-00001.parquet: prompt 'p4': the rewards span from"), "{wide}");

    let raw = Shaping { rule: Rule::Raw, ..Shaping::default() };
    let said = Shaper::new(raw, Some(0.5), Some(0.9)).unwrap_err().to_string();
    assert!(said.contains("raw has no bound to solve for"), "{said}");
    assert!(Shaper::new(raw, None, Some(0.2)).unwrap_err().to_string().contains("level is 0.2"));
}

/// Both theorems hold for the averages too, and the curves do not depend on the number of threads.
#[test]
fn frontiers_of_random_rewards() {
    let mut random = Random::new(2);
    let mut prompts = rewards();
    for i in 0..300 {
        let scale = 10f64.powf(random.normal());
        let rewards = (0..2 + i % 15).map(|_| scale * (random.normal() + 3.0)).collect();
        prompts.push((format!("q{i}"), rewards));
    }
    let shaping = Shaping { budget: Budget::ReferenceOffline, ..Shaping::default() };
    let frontiers = Frontiers::new(&prompts, &shaping).unwrap();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one.install(|| Frontiers::new(&prompts, &shaping)).unwrap(), frontiers);
    // Two prompts have equal rewards; the others have 17 checks for each of ten rules, and one for the given settings.
    assert_eq!(frontiers.checks, 306 * 171);
    assert!(frontiers.margins.iter().all(|margin| (-1e-12..=0.0).contains(margin)));
    let curve = |rule| frontiers.curves.iter().find(|curve| curve.rule == rule).unwrap();
    let base = prompts.iter().map(|(_, r)| r.iter().sum::<f64>() / r.len() as f64).sum::<f64>() / 308.0;
    assert!((frontiers.base - base).abs() < 1e-12);
    for rule in Rule::ALL {
        let curve_of = curve(rule);
        assert_eq!(
            (curve_of.by_bound[0], curve_of.by_kl[0]),
            ((0.0, frontiers.base), (0.0, frontiers.base))
        );
        for (at, hard) in curve_of.by_bound.iter().zip(&curve(Rule::Hard).by_bound) {
            assert!(at.0 == hard.0 && at.1 <= hard.1 + 1e-12, "{rule} {at:?} {hard:?}");
        }
        for nats in [0.05, 0.1, 0.3, 0.7] {
            let (own, raw) = (curve_of.at_kl(nats), curve(Rule::Raw).at_kl(nats).unwrap());
            assert!(own.is_none_or(|own| own <= raw * (1.0 + 1e-3)), "{rule} at {nats}: {own:?} {raw}");
        }
        assert_eq!(curve_of.at_bound(0.0), Some(frontiers.base));
        assert_eq!((curve_of.at_bound(1e9), curve_of.at_kl(1e9)), (None, None));
    }
}

#[test]
fn frontiers_of_equal_rewards_are_flat() {
    let prompts = vec![("a".to_owned(), vec![2.0; 3]), ("b".to_owned(), vec![4.0])];
    let frontiers = Frontiers::new(&prompts, &Shaping::default()).unwrap();
    assert_eq!((frontiers.checks, frontiers.base), (0, 3.0));
    assert!(frontiers.curves.iter().flat_map(|c| &c.by_bound).all(|point| point.1 == 3.0));
    assert!(frontiers.curves.iter().flat_map(|c| &c.by_kl).all(|point| *point == (0.0, 3.0)));
}
