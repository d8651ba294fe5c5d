//! The devices that a model can run on.

use std::fmt;
use std::str::FromStr;

use candle_core::Device as TensorDevice;

use crate::error::{Error, Result};

/// The device that a model runs on. As text: `cpu`, `candle`, `cuda`, `cuda:1`, `metal`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The CPU, with the [kernels](crate::kernel) of this crate.
    #[default]
    Cpu,
    /// The CPU, with candle's operations as on a GPU. It is slower, and meant for comparisons and tests.
    Candle,
    /// The NVIDIA GPU with this index. It needs the feature `cuda`.
    Cuda(usize),
    /// The Apple GPU with this index. It needs the feature `metal`.
    Metal(usize),
}

impl Device {
    /// The device for candle's operations; `None` for the kernels of this crate.
    ///
    /// # Errors
    /// This build does not support the device, or this machine does not have it.
    pub(crate) fn device(self) -> Result<Option<TensorDevice>> {
        let (device, built, feature) = match self {
            Self::Cpu => return Ok(None),
            Self::Candle => return Ok(Some(TensorDevice::Cpu)),
            Self::Cuda(number) => (TensorDevice::new_cuda(number), cfg!(feature = "cuda"), "cuda"),
            Self::Metal(number) => (TensorDevice::new_metal(number), cfg!(feature = "metal"), "metal"),
        };
        device.map(Some).map_err(|error| {
            // Behind the first line, there is only a backtrace.
            let error = error.to_string();
            let said = error.lines().next().unwrap_or_default();
            let what = match built {
                true => format!("cannot be used: {said}"),
                false => format!(
                    "not in this build: make one with `cargo build --release --features {feature}`"
                ),
            };
            Error::Device { place: self.to_string(), what }
        })
    }
}

impl fmt::Display for Device {
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

impl FromStr for Device {
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
