//! Where a model runs.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::error::{Error, Result};

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// On the CPU, by our own [kernels](crate::kernel).
    #[default]
    Cpu,
    /// On the CPU, by candle's operations, as on a GPU: slower, to compare and to test.
    Candle,
    /// On NVIDIA's GPU of this number, with the feature `cuda`.
    Cuda(usize),
    /// On Apple's GPU of this number, with the feature `metal`.
    Metal(usize),
}

impl Place {
    /// The device for candle's operations; `None` for our own kernels.
    ///
    /// # Errors
    /// This build knows no such device, or this machine has none.
    pub(crate) fn device(self) -> Result<Option<Device>> {
        let (device, built, feature) = match self {
            Self::Cpu => return Ok(None),
            Self::Candle => return Ok(Some(Device::Cpu)),
            Self::Cuda(number) => (Device::new_cuda(number), cfg!(feature = "cuda"), "cuda"),
            Self::Metal(number) => (Device::new_metal(number), cfg!(feature = "metal"), "metal"),
        };
        device.map(Some).map_err(|error| {
            // The first line says what; the rest is a backtrace.
            let error = error.to_string();
            let said = error.lines().next().unwrap_or_default();
            let what = match built {
                true => format!("cannot be used: {said}"),
                false => format!(
                    "not in this build: make one with `cargo build --release --features {feature}`"
                ),
            };
            Error::Place { place: self, what }
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Candle => f.pad("candle"),
            Self::Cuda(0) => f.pad("cuda"),
            Self::Metal(0) => f.pad("metal"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
        match (kind, number.parse()) {
            ("cuda", Ok(number)) => Ok(Self::Cuda(number)),
            ("metal", Ok(number)) => Ok(Self::Metal(number)),
            _ if name == "cpu" => Ok(Self::Cpu),
            _ if name == "candle" => Ok(Self::Candle),
            _ => Err(format!("unknown device '{name}': known are cpu, cuda, cuda:1, metal and candle")),
        }
    }
}
