//! Value heads: an estimate of the reward of the finished answer, from the policy's hidden state of the last token.

use std::convert::Infallible;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::file::{HeadFile, fits};
use super::project::project;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernel::{Dtype, Packed, tanh_all};
use crate::text_format::TextFormat;

/// A value head: `V(h) = w₄ · tanh(W₂ tanh(W₀ h + b₀) + b₂) + b₄`, where `h` is a hidden state `[d]` after the final norm.
/// It is the expected shaped reward of the finished answer. It is clamped to `[0, bound]` if the shaping has a bound.
pub struct ValueHead {
    hidden: [Layer; 2],
    weight: Vec<f32>,
    bias: f32,
    /// Fingerprint of the model that the head was trained on, if it is known.
    pub base: Option<String>,
    /// Name and hash of the reward that the head was trained on, if they are known.
    pub reward: Option<(String, String)>,
    /// The shaping of the rewards that the head was trained on, if it is known.
    pub shaping: Option<String>,
    /// The upper bound of values, `B`; the lower bound is 0.
    pub bound: Option<f64>,
    /// The layout of the texts that the head was trained on, if it is known.
    pub text_format: Option<TextFormat>,
    width: usize,
    path: PathBuf,
}

/// Weights, row by row, and a bias.
type Affine = (Vec<f32>, Vec<f32>);

/// `tanh(W x + b)`.
struct Layer {
    weight: Packed,
    bias: Vec<f32>,
}

impl ValueHead {
    /// A head with these weights and biases, `[h1, d]`, `[h1]`, `[h2, h1]`, `[h2]`, `[1, h2]`, `[1]`, row by row, without
    /// base model and bound.
    ///
    /// # Panics
    /// The lengths do not fit together.
    pub fn new(width: usize, [first, second, last]: [(Vec<f32>, Vec<f32>); 3]) -> Self {
        let outputs = first.1.len();
        assert_eq!((last.0.len(), last.1.len()), (second.1.len(), 1), "one output");
        Self {
            hidden: [Layer::new(width, first), Layer::new(outputs, second)],
            weight: last.0,
            bias: last.1[0],
            base: None,
            reward: None,
            shaping: None,
            bound: None,
            text_format: None,
            width,
            path: PathBuf::from("value head"),
        }
    }

    /// Loads a safetensors file with `0.weight` `[h1, d]`, `0.bias` `[h1]`, `2.weight` `[h2, h1]`, `2.bias` `[h2]`,
    /// `4.weight` `[1, h2]` and `4.bias` `[1]` in F32. Its metadata have `format=stackelberg-value` and may have `base`,
    /// `reward`, `reward_hash`, `shaping`, `bound` and `text_format`. Files that PyTorch writes, without these metadata, are read too.
    ///
    /// # Errors
    /// The file is missing, truncated or not a value head; a value is not finite.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &std::fs::read(path).map_err(Error::read(path))?)
    }

    /// As [`ValueHead::load`], from memory. Error messages name the file `path`.
    ///
    /// # Errors
    /// As [`ValueHead::load`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let file = HeadFile::open(path, bytes)?;
        // PyTorch's writers set the format "pt".
        if let Some(format) = file.text("format").filter(|f| !["stackelberg-value", "pt"].contains(f)) {
            let what = match format {
                "stackelberg-head" => "it is a reward head; give it as the reward".to_owned(),
                _ => format!("its metadata say format={format}"),
            };
            return Err(file.error(format!("not a value head: {what}")));
        }
        let bound = file.number("bound")?;
        if let Some(bound) = bound.filter(|bound| *bound < 0.0) {
            return Err(file.error(format!("bound is {bound}: it must be zero or more")));
        }
        let text_format = file.text("text_format").map(str::parse).transpose();
        let (width, layers) = layers(&file)?;
        Ok(Self {
            base: file.text("base").map(str::to_owned),
            reward: file
                .text("reward")
                .map(str::to_owned)
                .zip(file.text("reward_hash").map(str::to_owned)),
            shaping: file.text("shaping").map(str::to_owned),
            bound,
            text_format: text_format.map_err(|e: String| file.error(e))?,
            path: path.to_owned(),
            ..Self::new(width, layers)
        })
    }

    /// Width of the hidden states, `d`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Checks that the head was trained on this policy.
    ///
    /// # Errors
    /// The head has another width, or was trained on another model.
    pub fn fits(&self, policy: &Checkpoint) -> Result<()> {
        fits(&self.path, self.width, self.base.as_deref(), policy)
    }

    /// Size of the weights in bytes.
    pub fn bytes(&self) -> usize {
        let layers: usize = self.hidden.iter().map(|layer| layer.weight.bytes()).sum();
        layers + size_of_val(&self.weight[..])
    }

    /// Values of hidden states `[n, d]`, in units of the shaped reward. Results are batch-invariant.
    ///
    /// # Errors
    /// The hidden states have another width or dtype.
    pub fn score(&self, hidden: &Tensor) -> Result<Vec<f64>> {
        let (n, found) = hidden.dims2()?;
        if found != self.width {
            return Err(Error::Width { found, expected: self.width });
        }
        let mut x: Vec<f32> = hidden.flatten_all()?.to_vec1()?;
        for layer in &self.hidden {
            x = layer.forward(&x, n);
        }
        let x = Tensor::from_vec(x, (n, self.weight.len()), hidden.device())?;
        let values = project(&x, &self.weight)?.into_iter().map(|value| value + f64::from(self.bias));
        Ok(values.map(|value| self.bound.map_or(value, |bound| value.clamp(0.0, bound))).collect())
    }
}

impl Layer {
    fn new(inputs: usize, (weight, bias): Affine) -> Self {
        assert_eq!(weight.len(), inputs * bias.len(), "one row per output");
        let rows = |rows: Range<usize>, to: &mut [f32]| {
            to.copy_from_slice(&weight[rows.start * inputs..rows.end * inputs]);
            Ok::<(), Infallible>(())
        };
        let Ok(packed) = Packed::new(bias.len(), inputs, Dtype::F32, rows);
        Self { weight: packed, bias }
    }

    /// x `[n, inputs]` to `[n, outputs]`.
    fn forward(&self, x: &[f32], n: usize) -> Vec<f32> {
        let mut y = self.bias.repeat(n);
        self.weight.apply(x, &mut y, true);
        tanh_all(&mut y);
        y
    }
}

/// The width of the hidden states, and weights and biases of the three layers.
fn layers(file: &HeadFile<'_>) -> Result<(usize, [Affine; 3])> {
    let tensor = |name: &str, expected: [Option<usize>; 2]| -> Result<(Vec<usize>, Vec<f32>)> {
        let (shape, values) = file.floats(name)?.ok_or_else(|| file.missing(name))?;
        let fits = |(found, expected): (&usize, &Option<usize>)| {
            *found > 0 && expected.is_none_or(|expected| expected == *found)
        };
        // A bias has one dimension.
        let dims = if name.ends_with("bias") { &expected[..1] } else { &expected[..] };
        if shape.len() == dims.len() && shape.iter().zip(dims).all(fits) {
            return Ok((shape, values));
        }
        let dims: Vec<String> =
            dims.iter().map(|dim| dim.map_or("any".to_owned(), |dim| dim.to_string())).collect();
        let dims = dims.join(", ");
        Err(file.error(format!("the tensor '{name}' has shape {shape:?} where [{dims}] is expected")))
    };
    let layer = |number: usize, outputs: Option<usize>, inputs: Option<usize>| {
        let (shape, weight) = tensor(&format!("{number}.weight"), [outputs, inputs])?;
        let (_, bias) = tensor(&format!("{number}.bias"), [Some(shape[0]), None])?;
        Ok::<_, Error>((shape, (weight, bias)))
    };
    let (first, zero) = layer(0, None, None)?;
    let (second, two) = layer(2, None, Some(first[0]))?;
    let (_, four) = layer(4, Some(1), Some(second[0]))?;
    Ok((first[1], [zero, two, four]))
}
