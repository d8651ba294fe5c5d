//! Writes safetensors files with reproducible bytes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A tensor to write: name, shape and numbers in row-major order.
pub(crate) type Named<'a> = (&'a str, Vec<usize>, &'a [f32]);

/// The bytes of a safetensors file of F32 tensors, with metadata in the order of the keys. (The safetensors crate keeps
/// metadata in a HashMap and writes it in random order.)
pub(crate) fn to_bytes(metadata: &BTreeMap<String, String>, tensors: &[Named<'_>]) -> Vec<u8> {
    let mut header = BTreeMap::new();
    header.insert("__metadata__", json!(metadata));
    let mut end = 0;
    for (name, shape, numbers) in tensors {
        let begin = end;
        end += size_of_val(*numbers);
        let about = json!({"data_offsets": [begin, end], "dtype": "F32", "shape": shape});
        header.insert(name, about);
    }
    // The keys are sorted even if another crate enables serde_json's `preserve_order`.
    let header: Map<String, Value> =
        header.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.append(&mut header);
    for (.., numbers) in tensors {
        bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    }
    bytes
}
