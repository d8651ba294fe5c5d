//! Reads values and rewards so far of the validation set at each distance from the end of its answers.

use candle_core::{Device, Tensor};
use half::slice::HalfFloatSliceExt;
use stackelberg_engine::reward::Head;

use super::data::{Data, Held, Window};
use super::foresight::{DISTANCES, Distance, Foresight, Point};
use super::network::Network;
use super::settings::Settings;
use super::train::Watch;
use crate::error::Error;

/// Measures on the validation set how much of the final reward the network foresees. `so_far` is the head that gives the
/// rewards of unfinished answers, or the reason why they are not known.
///
/// # Errors
/// Hidden states cannot be read, or do not fit `so_far`; the caller stopped the run.
pub(super) fn foresight(
    data: &Data,
    held: &mut Held<'_>,
    settings: &Settings,
    network: &Network,
    so_far: Result<&Head, String>,
    watch: &dyn Watch,
) -> Result<Foresight, Error> {
    let bound = settings.bound();
    let (layers, width) = (network.layers()?, network.widths[0]);
    let mut points: Vec<Vec<Point>> = vec![Vec::new(); DISTANCES.len()];
    for Window { shards, batches } in data.checks(settings.memory) {
        held.hold(&shards)?;
        for target in batches.iter().flatten() {
            if watch.stop() {
                return Err(Error::Stopped);
            }
            let all = held.of(target);
            let tokens = held.tokens(target);
            let mut states = Vec::new();
            for distance in DISTANCES.into_iter().filter(|&distance| distance < tokens) {
                let begin = (tokens - 1 - distance) * width;
                let mut row = vec![0f32; width];
                all[begin..begin + width].convert_to_f32_slice(&mut row);
                states.extend(row);
            }
            let rewards = match &so_far {
                Ok(reward) => {
                    let shape = (states.len() / width, width);
                    Some(reward.score(&Tensor::from_slice(&states, shape, &Device::Cpu)?)?)
                }
                Err(_) => None,
            };
            network.inputs.standardise(&mut states);
            for (i, value) in layers.values(states)?.into_iter().enumerate() {
                let value = f64::from(value);
                points[i].push(Point {
                    prompt: target.prompt,
                    target: target.value,
                    reward: target.reward,
                    value: bound.map_or(value, |bound| value.clamp(0.0, bound)),
                    so_far: rewards.as_ref().map(|rewards| rewards[i]),
                });
            }
        }
    }
    let distances = DISTANCES.into_iter().zip(points);
    let distances = distances.map(|(tokens, points)| Distance::new(tokens, points)).collect();
    Ok(Foresight { distances, unknown: so_far.err() })
}
