//! What a model remembers of the tokens it has read, and of tokens it only looked at.

use candle_core::{DType, Device, Result, Tensor};

/// Keys and values of a text that the model has read: shared by every look ahead from its end.
#[derive(Debug)]
pub struct Prefix {
    tokens: Vec<u32>,
    layers: Vec<Layer>,
}

/// Keys and values of one layer, `[kv_heads, capacity, head_dim]`; only the first `len` are filled.
#[derive(Debug)]
struct Layer {
    keys: Tensor,
    values: Tensor,
}

/// Tokens that were run behind a prefix but are not part of it: the candidates of a step, or the rest of
/// a text. [`Prefix::commit`] takes one in without running it again.
#[derive(Debug)]
pub struct Branches {
    /// The tokens, `n` of them.
    pub tokens: Vec<u32>,
    /// Their hidden states after the final norm, `[n, d]`.
    pub hidden: Tensor,
    /// Keys and values per layer, `[kv_heads, n, head_dim]`.
    pub(crate) layers: Vec<(Tensor, Tensor)>,
    /// Length of the prefix that they were run behind.
    pub(crate) behind: usize,
}

/// Room is made for so many tokens at a time, at least.
const STEP: usize = 256;

impl Prefix {
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, device: &Device) -> Result<Self> {
        let empty = || Tensor::zeros((kv_heads, STEP, head_dim), DType::F32, device);
        let layer = |_| Ok(Layer { keys: empty()?, values: empty()? });
        Ok(Self { tokens: Vec::new(), layers: (0..layers).map(layer).collect::<Result<_>>()? })
    }

    /// The tokens read so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// A copy that goes its own way.
    ///
    /// # Errors
    /// Memory.
    pub fn fork(&self) -> crate::Result<Self> {
        let copy = |layer: &Layer| Ok(Layer { keys: layer.keys.copy()?, values: layer.values.copy()? });
        let layers = self.layers.iter().map(copy).collect::<Result<_>>()?;
        Ok(Self { tokens: self.tokens.clone(), layers })
    }

    /// Keys and values of one layer, `[kv_heads, len, head_dim]`, without a copy.
    pub(crate) fn layer(&self, layer: usize) -> Result<(Tensor, Tensor)> {
        let Layer { keys, values } = &self.layers[layer];
        Ok((keys.narrow(1, 0, self.len())?, values.narrow(1, 0, self.len())?))
    }

    /// Takes in rows `from..from + n` of what was run behind this very prefix.
    pub(crate) fn append(&mut self, branches: &Branches, from: usize, n: usize) -> Result<()> {
        if branches.behind != self.len() {
            candle_core::bail!(
                "these tokens were run behind {} others, not {}",
                branches.behind,
                self.len()
            );
        }
        self.reserve(n)?;
        let at = self.len();
        for (layer, (keys, values)) in self.layers.iter().zip(&branches.layers) {
            layer.keys.slice_set(&keys.narrow(1, from, n)?.contiguous()?, 1, at)?;
            layer.values.slice_set(&values.narrow(1, from, n)?.contiguous()?, 1, at)?;
        }
        self.tokens.extend_from_slice(&branches.tokens[from..from + n]);
        Ok(())
    }

    /// Makes the chosen branch part of the prefix. Nothing is run.
    ///
    /// # Errors
    /// The branches were run behind another prefix, or there is no such branch.
    pub fn commit(&mut self, branches: &Branches, chosen: usize) -> crate::Result<()> {
        Ok(self.append(branches, chosen, 1)?)
    }

    /// Doubles the room when it is used up, so that a token costs one copy of the prefix at most, over
    /// its whole life.
    fn reserve(&mut self, more: usize) -> Result<()> {
        let (kv_heads, capacity, head_dim) = self.layers[0].keys.dims3()?;
        if self.len() + more <= capacity {
            return Ok(());
        }
        let room = (self.len() + more).max(2 * capacity).next_multiple_of(STEP);
        for layer in &mut self.layers {
            for tensor in [&mut layer.keys, &mut layer.values] {
                let larger = Tensor::zeros((kv_heads, room, head_dim), DType::F32, tensor.device())?;
                larger.slice_set(tensor, 1, 0)?;
                *tensor = larger;
            }
        }
        Ok(())
    }
}
