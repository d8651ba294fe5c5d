//! The header of a GGUF file: metadata, the tokenizer in them, and where the tensors lie; their numbers stay.
#![no_main]

use std::fs;

use candle_core::quantized::gguf_file::Content;
use libfuzzer_sys::fuzz_target;
use stackelberg_engine::model::Model;
use stackelberg_engine::{Checkpoint, Dtype};
use stackelberg_fuzz::{case, family, folder, of_family, read, try_out};

fuzz_target!(|data: &[u8]| {
    let Some((family, header)) = family(data) else { return };
    let Ok(whole) = fs::read(of_family(family, "model.gguf")) else { return };
    let numbers = Content::read(&mut std::io::Cursor::new(&whole)).expect("a whole file").tensor_data_offset;
    let padding = vec![0; header.len().next_multiple_of(32) - header.len()];
    let file = [header, &padding, &whole[numbers as usize..]].concat();
    case(|| {
        let path = folder().join("model.gguf");
        fs::write(&path, &file).expect("the case's file");
        // Without a tokenizer beside it, the one inside is read.
        if let Ok(checkpoint) = Checkpoint::load(&path, Dtype::F32) {
            try_out(&checkpoint);
        } else if let Ok(model) = Model::load(&path, Dtype::F32) {
            read(&model);
        }
    });
});
