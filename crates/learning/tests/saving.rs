//! Heads and cards on disk.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use stackelberg_engine::embedder::Pooling;
use stackelberg_engine::reward as engine;
use stackelberg_learning::{
    Backbone, Card, Features, Fit, Head, Settings, Source, TextFormat, fit, measure,
};

fn fitted() -> Fit {
    let x: Vec<f32> = (0..80).map(|i| (i * 37 % 11) as f32 + 0.1 * (i * 5 % 7) as f32).collect();
    let targets: Vec<f64> = x.chunks_exact(2).map(|x| f64::from(x[0] - 2.0 * x[1]).sin()).collect();
    fit::regression(Features::new(&x, 2).unwrap(), &targets, &Settings::default()).unwrap()
}

fn head() -> Head {
    let extra = (0..20).map(|i| (format!("note{i}"), format!("value \"{i}\"\n"))).collect();
    Head {
        weight: vec![0.5, -1.25e-7, 3.0],
        bias: Some(-0.75),
        base: Some("sha256:12ab".into()),
        base_name: Some("tiny".into()),
        backbone: Backbone::Policy,
        text_format: TextFormat::Chat,
        reward_mean: 0.1,
        reward_std: 2.5e-3,
        extra,
    }
}

#[test]
fn safetensors_reads_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kind.safetensors");
    head().save(&path, "# kind\n").unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let weight = tensors.tensor("score.weight").unwrap();
    assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, &[1, 3][..]));
    let expected: Vec<u8> = head().weight.iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(weight.data(), expected);
    let bias = tensors.tensor("score.bias").unwrap();
    assert_eq!((bias.shape(), bias.data()), (&[1][..], &(-0.75_f32).to_le_bytes()[..]));
    assert_eq!(tensors.len(), 2);

    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let mut expected = head().extra;
    for (key, value) in [
        ("format", "stackelberg-head"),
        ("base", "sha256:12ab"),
        ("base_name", "tiny"),
        ("text_format", "chat"),
        ("reward_mean", "0.1"),
        ("reward_std", "0.0025"),
    ] {
        expected.insert(key.into(), value.into());
    }
    assert_eq!(metadata.into_iter().collect::<BTreeMap<_, _>>(), expected);
    assert_eq!(std::fs::read_to_string(folder.path().join("kind.md")).unwrap(), "# kind\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
    assert_eq!(bytes, head().to_bytes().unwrap(), "the same bytes each time");
}

#[test]
fn a_head_without_bias_or_base() {
    let head = Head { bias: None, base: None, base_name: None, extra: BTreeMap::new(), ..head() };
    let bytes = head.to_bytes().unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().names(), ["score.weight"]);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap().len(), 4);
}

#[test]
fn a_head_on_an_embedder_says_so() {
    let head =
        Head { backbone: Backbone::Embedder(Pooling::Cls), text_format: TextFormat::Raw, ..head() };
    let bytes = head.to_bytes().unwrap();
    let read = engine::Head::parse(Path::new("h"), &bytes).unwrap();
    assert_eq!(read.backbone, head.backbone);
    assert_eq!((read.base, read.base_name), (head.base.clone(), head.base_name.clone()));
    assert_eq!(bytes, head.to_bytes().unwrap(), "the same bytes each time");
    let card = Card::default().render(&head, &fitted());
    let row =
        "| backbone | an embedder (cls pooling): it scores complete texts and cannot guide decoding |";
    assert!(card.contains(row), "{card}");
    for key in ["backbone", "pooling"] {
        let extra = BTreeMap::from([(key.to_owned(), String::new())]);
        assert!(Head { extra, ..head.clone() }.to_bytes().is_err());
    }
}

#[test]
fn what_stood_there_is_replaced_or_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.safetensors");
    head().save(&path, "one").unwrap();
    let before = std::fs::read(&path).unwrap();
    let bad = Head { weight: vec![1.0, f32::NAN], ..head() };
    assert_eq!(
        bad.save(&path, "two").unwrap_err().to_string(),
        "score.weight[1] is NaN: it must be a finite number"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_to_string(path.with_extension("md")).unwrap(), "one");
    Head { weight: vec![9.0], ..head() }.save(&path, "three").unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), before);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain), "readable like any other file");
    }
}

#[test]
fn bad_heads() {
    let save = |head: Head, path: &str| head.save(Path::new(path), "").unwrap_err().to_string();
    assert_eq!(
        save(head(), "/tmp/head.bin"),
        "cannot write /tmp/head.bin: the name of a head must end in .safetensors"
    );
    let message = save(head(), "/nowhere/at/all.safetensors");
    assert!(message.starts_with("cannot write /nowhere/at/all.md: No such file"), "{message}");
    let bytes = |head: Head| head.to_bytes().unwrap_err().to_string();
    let extra = BTreeMap::from([("base".to_owned(), String::new())]);
    assert_eq!(bytes(Head { extra, ..head() }), "metadata key 'base' is reserved: choose another name");
    assert_eq!(bytes(Head { reward_std: 0.0, ..head() }), "reward_std is 0: it must be positive");
    assert!(bytes(Head { reward_mean: f64::NAN, ..head() }).starts_with("reward_mean is NaN"));
    assert!(bytes(Head { bias: Some(f32::INFINITY), ..head() }).starts_with("score.bias is inf"));
    assert_eq!(bytes(Head { weight: vec![], ..head() }), "0 features do not make rows of 0");
    let unknown = "chatty".parse::<TextFormat>().unwrap_err().to_string();
    assert_eq!(unknown, "unknown text format 'chatty': known are raw and chat");
    assert_eq!("raw".parse::<TextFormat>().unwrap(), TextFormat::Raw);
}

#[test]
fn the_card_says_what_matters() {
    let fit = fitted();
    let head = Head { base_name: Some("tiny".into()), ..Head::new(&fit, TextFormat::Raw) };
    assert_eq!(head.bias, Some(fit.bias));
    let metrics = measure::ratings(&[0.1, 0.4, 0.3], &[0.0, 0.5, 0.4], None).unwrap();
    let source = |name: &str, part: &str, metrics| Source {
        name: name.into(),
        rows: 40,
        groups: 40,
        part: part.into(),
        metrics,
    };
    let card = Card {
        title: "sine".into(),
        about: "High where the sine is.".into(),
        data: vec![source("a|b.jsonl", "training", None), source("c.jsonl", "held out", Some(metrics))],
        command: "stackelberg train reward --rated a.jsonl".into(),
        notes: vec!["MIT.".into()],
    };
    let text = card.render(&head, &fit);
    assert_eq!(text, card.render(&head, &fitted()));
    for line in [
        "# sine",
        "High where the sine is.",
        "| training data | ratings, ridge regression |",
        "| base model | tiny |",
        "| text format | raw |",
        "| width | 2 |",
        "| data | part | rows | groups | Pearson r | R² |",
        "| a\\|b.jsonl | training | 40 | 40 |  |  |",
        "5 folds, seed 0, no group in two folds.",
        "    stackelberg train reward --rated a.jsonl",
        "MIT.",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
    let held_out = format!("| c.jsonl | held out | 40 | 40 | {:.4} ± ", metrics[0].value);
    assert!(text.contains(&held_out), "{text}");
    assert_eq!(text.matches("| chosen |").count(), 1);
    assert_eq!(text.lines().filter(|l| l.starts_with("| 1.000e")).count(), 7);
}
