//! Measures the memory bandwidth, which limits every step that reads all weights once.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

/// 64-bit words in the buffer: 512 MiB, far more than the caches hold.
const WORDS: usize = 1 << 26;

/// Independent streams per thread: a single stream does not use the full bandwidth.
const STREAMS: usize = 8;

/// Passes per measurement, of which the best counts.
const PASSES: usize = 3;

/// A buffer of which each thread reads its own part.
pub struct Bandwidth {
    buffer: Vec<u64>,
    /// Words per thread.
    part: usize,
}

impl Bandwidth {
    /// Allocates the buffer of 512 MiB for so many threads, at least 1. Each thread writes its part first, so that the pages are mapped.
    pub fn new(threads: usize) -> Self {
        let mut buffer = vec![0; WORDS];
        let part = WORDS.div_ceil(threads.max(1));
        thread::scope(|scope| {
            for part in buffer.chunks_mut(part) {
                scope.spawn(|| part.fill(1));
            }
        });
        Self { buffer, part }
    }

    /// Measures the bandwidth, in GB/s.
    pub fn measure(&self) -> f64 {
        (0..PASSES).map(|_| self.pass()).fold(0.0, f64::max)
    }

    /// Reads the whole buffer once; returns the bandwidth in GB/s.
    fn pass(&self) -> f64 {
        let began = Instant::now();
        thread::scope(|scope| {
            for part in self.buffer.chunks(self.part) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        size_of_val(&self.buffer[..]) as f64 / 1e9 / began.elapsed().as_secs_f64()
    }
}

/// Sums all words, in 64 independent sums so that only memory limits the speed.
fn sum(part: &[u64]) -> u64 {
    let (blocks, rest) = part.as_chunks::<64>();
    let span = blocks.len() / STREAMS;
    let (streams, more) = blocks.split_at(span * STREAMS);
    let mut sums = [0u64; 64];
    let mut add = |block: &[u64; 64]| {
        sums.iter_mut().zip(block).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
    };
    for i in 0..span {
        (0..STREAMS).for_each(|stream| add(&streams[stream * span + i]));
    }
    more.iter().for_each(add);
    sums.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn every_word_is_read_once() {
        for length in [0, 63, 64, 1000, 64 * 17 + 5] {
            let words: Vec<u64> = (1..=length).collect();
            assert_eq!(sum(&words), length * (length + 1) / 2);
        }
    }
}
