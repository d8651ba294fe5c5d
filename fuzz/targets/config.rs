//! `config.json` of decoders and encoders.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stackelberg_fuzz::{case, family, folder, lay_out, load};

fuzz_target!(|data: &[u8]| {
    let Some((family, config)) = family(data) else { return };
    case(|| {
        lay_out(family, "config.json", config);
        load(folder());
    });
});
