//! Value heads: their equation, their bound, and the error messages for invalid files.

use std::path::Path;

use candle_core::Device;
use serde_json::json;
use stackelberg_engine::reward::{TextFormat, ValueHead};
use stackelberg_engine::{Checkpoint, Dtype, Tensor};

use crate::common::tiny::{D, Tiny};

fn load(tiny: &Tiny) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    Checkpoint::load(folder.path(), Dtype::F32).unwrap()
}

/// The file of a value head with 16, 6, 4 and 1 units, whose weights are all equal.
fn value_head(
    metadata: serde_json::Value,
    change: fn(&mut Vec<(&str, Vec<usize>)>),
    value: f32,
) -> Vec<u8> {
    let mut tensors = vec![
        ("0.weight", vec![6, D]),
        ("0.bias", vec![6]),
        ("2.weight", vec![4, 6]),
        ("2.bias", vec![4]),
        ("4.weight", vec![1, 4]),
        ("4.bias", vec![1]),
    ];
    change(&mut tensors);
    let (mut header, mut data) = (json!({}), Vec::new());
    if metadata.is_object() {
        header["__metadata__"] = metadata;
    }
    for (name, shape) in tensors {
        let start = data.len();
        data.extend(value.to_le_bytes().repeat(shape.iter().product()));
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

#[test]
fn a_value_head_is_its_equation() {
    let policy = load(&Tiny::default());
    let metadata = json!({"format": "stackelberg-value", "base": policy.fingerprint, "shaping": "srs",
        "bound": "0.4", "text_format": "chat"});
    let parse =
        |metadata| ValueHead::parse(Path::new("F"), &value_head(metadata, |_| (), 0.03)).unwrap();
    let (head, plain) = (parse(metadata), parse(serde_json::Value::Null));
    head.fits(&policy).unwrap();
    plain.fits(&policy).unwrap();
    let said = (head.shaping.as_deref(), head.bound, head.text_format);
    assert_eq!(said, (Some("srs"), Some(0.4), Some(TextFormat::Chat)));
    let (of_plain, base) = ((plain.bound, plain.text_format), plain.base.as_deref());
    assert_eq!((of_plain, base), ((None, None), None));

    let rows = [[1f32; D], [-40.0; D], [40.0; D]];
    let hidden = Tensor::from_vec(rows.concat(), (3, D), &Device::Cpu).unwrap();
    let equation = |row: &[f32; D]| {
        let first = (0.03 * f64::from(row.iter().sum::<f32>()) + 0.03).tanh();
        let second = (0.03 * 6.0 * first + 0.03).tanh();
        0.03 * 4.0 * second + 0.03
    };
    let values = plain.score(&hidden).unwrap();
    for (row, value) in rows.iter().zip(&values) {
        assert!((value - equation(row)).abs() < 1e-6, "{value}");
    }
    assert!(values[1] > 0.0);
    // Bit-identical, alone or in a batch.
    assert_eq!(plain.score(&hidden.narrow(0, 2, 1).unwrap()).unwrap(), &values[2..]);

    let wide = Tensor::from_vec(vec![0f32; 8], (1, 8), &Device::Cpu).unwrap();
    let error = plain.score(&wide).unwrap_err().to_string();
    assert_eq!(error, "hidden states of width 8, where the reward reads 16");
}

#[test]
fn values_keep_to_the_bound() {
    let metadata = json!({"format": "stackelberg-value", "bound": "0.5"});
    let head = ValueHead::parse(Path::new("F"), &value_head(metadata, |_| (), 1.0)).unwrap();
    let hidden = Tensor::from_vec([[1f32; D], [-1.0; D]].concat(), (2, D), &Device::Cpu).unwrap();
    assert_eq!(head.score(&hidden).unwrap(), [0.5, 0.0]);
}

#[test]
fn value_heads_that_do_not_fit_are_named() {
    let policy = load(&Tiny::default());
    let refused = |bytes: &[u8]| {
        let parsed = ValueHead::parse(Path::new("F"), bytes).and_then(|head| head.fits(&policy));
        parsed.unwrap_err().to_string()
    };
    let ours = || json!({"format": "stackelberg-value"});
    let whole = value_head(ours(), |_| (), 0.1);
    assert!(ValueHead::parse(Path::new("F"), &whole).unwrap().fits(&policy).is_ok());
    for cut in [4, 100, whole.len() - 1] {
        assert!(refused(&whole[..cut]).starts_with("F: not a whole safetensors file ("));
    }
    assert_eq!(refused(&value_head(ours(), |_| (), f32::NAN)), "F: 0.weight[0] is NaN");
    let shaped = |change: fn(&mut Vec<(&str, Vec<usize>)>)| refused(&value_head(ours(), change, 0.1));
    assert_eq!(
        shaped(|tensors| tensors[0].1 = vec![6, 8]),
        "F: reads hidden states of width 8, the policy's have 16"
    );
    assert_eq!(
        shaped(|tensors| tensors[2].1 = vec![4, 5]),
        "F: the tensor '2.weight' has shape [4, 5] where [any, 6] is expected"
    );
    assert_eq!(
        shaped(|tensors| tensors[3].1 = vec![1, 4]),
        "F: the tensor '2.bias' has shape [1, 4] where [4] is expected"
    );
    assert_eq!(
        shaped(|tensors| tensors[4].1 = vec![2, 4]),
        "F: the tensor '4.weight' has shape [2, 4] where [1, 4] is expected"
    );
    assert_eq!(
        shaped(|tensors| tensors[0].1 = vec![0, D]),
        "F: the tensor '0.weight' has shape [0, 16] where [any, any] is expected"
    );
    assert_eq!(shaped(|tensors| drop(tensors.remove(5))), "F: the tensor '4.bias' is missing");
    for (key, value, said) in [
        (
            "format",
            "stackelberg-head",
            "F: not a value head: it is a reward head; give it as the reward",
        ),
        ("base", "abc", "was trained on the model abc, not on this policy"),
        ("bound", "-1", "F: bound is -1: it must be zero or more"),
        ("bound", "inf", "F: bound is 'inf', not a number"),
        ("text_format", "hh", "unknown text format 'hh'"),
    ] {
        let mut metadata = ours();
        metadata[key] = json!(value);
        let found = refused(&value_head(metadata, |_| (), 0.1));
        assert!(found.contains(said), "{found}");
    }
}
