//! The header of `model.safetensors`, and of the files of heads; the numbers behind it stay.
#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stackelberg_engine::reward::{Head, ValueHead};
use stackelberg_fuzz::{case, family, folder, lay_out, load, of_family};

fuzz_target!(|data: &[u8]| {
    let Some((family, header)) = family(data) else { return };
    let whole = fs::read(of_family(family, "model.safetensors")).expect("a family's weights");
    let behind = 8 + whole.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)) as usize;
    // Above 127 the length is the input's, too.
    let file = match data[0] > 127 {
        true => [header, &whole[behind..]].concat(),
        false => [&(header.len() as u64).to_le_bytes(), header, &whole[behind..]].concat(),
    };
    case(|| {
        let _ = Head::parse(Path::new("head"), &file);
        let _ = ValueHead::parse(Path::new("head"), &file);
        lay_out(family, "model.safetensors", &file);
        load(folder());
    });
});
