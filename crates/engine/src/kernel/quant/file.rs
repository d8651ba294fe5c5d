//! Blocks of a GGUF file into a panel. Integers and scales are moved, not changed.

use super::format::{BLOCK, Format, Quant, Scales, store, with_format};
use crate::kernel::weight::LANES;

/// Stores one output's blocks, as they are in the file, in a panel of zeros.
pub(super) fn put(quant: Quant, panel: &mut [u8], lane: usize, row: &[u8]) {
    let per_block = quant.weights() / BLOCK;
    with_format!(quant, F => {
        for (i, stored) in row.chunks_exact(quant.bytes()).enumerate() {
            for part in 0..per_block {
                let block = i * per_block + part;
                let (integers, scales) = block_of(quant, stored, part);
                let to = &mut panel[F::at(block)..][..F::BYTES];
                store::<F>(to, lane, &integers);
                put_scales(F::SCALES, &mut to[F::INTEGERS..], lane, scales);
            }
            put_factors(quant, &mut panel[F::factors(i * per_block)..], lane, stored);
        }
    });
}

/// Stores an output's block that was rounded to Q8_0: integers with their zero added, and the scale's bits.
pub(super) fn put_rounded(
    panel: &mut [u8],
    block: usize,
    lane: usize,
    integers: &[u8; BLOCK],
    scale: u16,
) {
    type F = super::format::Q8_0;
    let to = &mut panel[F::at(block)..][..F::BYTES];
    store::<F>(to, lane, integers);
    put_two(&mut to[F::INTEGERS..], lane, scale.to_le_bytes());
}

/// Integers and scales of 32 weights. The scales are as [`put_scales`] takes them.
#[inline(always)]
fn block_of(quant: Quant, stored: &[u8], part: usize) -> ([u8; BLOCK], [u8; 4]) {
    match quant {
        Quant::Q4_0 => (halves(&stored[2..]), [stored[0], stored[1], 0, 0]),
        Quant::Q4_1 => (halves(&stored[4..]), four(stored)),
        Quant::Q5_0 => {
            (with_bits(halves(&stored[6..]), four(&stored[2..])), [stored[0], stored[1], 0, 0])
        }
        Quant::Q5_1 => (with_bits(halves(&stored[8..]), four(&stored[4..])), four(stored)),
        Quant::Q8_0 => {
            let integers = std::array::from_fn(|i| stored[2 + i] ^ 0x80);
            (integers, [stored[0], stored[1], 0, 0])
        }
        Quant::Q4K => (half_of(&stored[16..], part), six_bits(&stored[4..16], part)),
        Quant::Q5K => {
            let (mut integers, high) = (half_of(&stored[48..], part), &stored[16..48]);
            integers
                .iter_mut()
                .zip(high)
                .for_each(|(integer, high)| *integer |= (high >> part & 1) << 4);
            (integers, six_bits(&stored[4..16], part))
        }
        Quant::Q6K => {
            // 128 weights have 64 bytes of low bits: 32 bytes for the blocks 0 and 2, 32 for 1 and 3.
            let (outer, inner) = (part / 4, part % 4);
            let (low, high) = (&stored[64 * outer + 32 * (inner % 2)..], &stored[128 + 32 * outer..]);
            let integers = std::array::from_fn(|i| {
                low[i] >> (inner / 2 * 4) & 15 | (high[i] >> (2 * inner) & 3) << 4
            });
            (integers, [stored[192 + 2 * part], stored[193 + 2 * part], 0, 0])
        }
    }
}

/// 32 integers of 4 bits: the low halves of 16 bytes, then the high halves.
#[inline(always)]
fn halves(bytes: &[u8]) -> [u8; BLOCK] {
    let mut all = [0; BLOCK];
    let (low, high) = all.split_at_mut(BLOCK / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    all
}

/// 32 integers of 4 bits: the low or the high halves of 32 bytes.
#[inline(always)]
fn half_of(bytes: &[u8], part: usize) -> [u8; BLOCK] {
    let bytes = &bytes[part / 2 * BLOCK..][..BLOCK];
    std::array::from_fn(|i| bytes[i] >> (part % 2 * 4) & 15)
}

/// Adds the fifth bit of each of 32 integers.
#[inline(always)]
fn with_bits(integers: [u8; BLOCK], bits: [u8; 4]) -> [u8; BLOCK] {
    std::array::from_fn(|i| integers[i] | (bits[i / 8] >> (i % 8) & 1) << 4)
}

/// Scale and minimum of a block among eight, 6 bits each in 12 bytes.
#[inline(always)]
fn six_bits(bytes: &[u8], block: usize) -> [u8; 4] {
    let [scale, minimum] = match block {
        0..4 => [bytes[block] & 63, bytes[block + 4] & 63],
        _ => [
            bytes[block + 4] & 15 | (bytes[block - 4] >> 6) << 4,
            bytes[block + 4] >> 4 | (bytes[block] >> 6) << 4,
        ],
    };
    [scale, minimum, 0, 0]
}

/// Stores an output's scales: one or two f16, or two bytes.
#[inline(always)]
fn put_scales(scales: Scales, to: &mut [u8], lane: usize, [a, b, c, d]: [u8; 4]) {
    match scales {
        Scales::One => put_two(to, lane, [a, b]),
        Scales::Minimum => {
            put_two(to, lane, [a, b]);
            put_two(to, LANES + lane, [c, d]);
        }
        Scales::Shared | Scales::Halves => (to[lane], to[LANES + lane]) = (a, b),
    }
}

/// Stores the factors that an output's blocks share.
#[inline(always)]
fn put_factors(quant: Quant, to: &mut [u8], lane: usize, stored: &[u8]) {
    match quant {
        Quant::Q4K | Quant::Q5K => {
            put_two(to, lane, [stored[0], stored[1]]);
            // The minimum is subtracted: its factor is negated.
            put_two(to, LANES + lane, [stored[2], stored[3] ^ 0x80]);
        }
        Quant::Q6K => put_two(to, lane, [stored[208], stored[209]]),
        _ => {}
    }
}

#[inline(always)]
fn put_two(to: &mut [u8], i: usize, bytes: [u8; 2]) {
    to[2 * i..2 * i + 2].copy_from_slice(&bytes);
}

#[inline(always)]
fn four(bytes: &[u8]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}
