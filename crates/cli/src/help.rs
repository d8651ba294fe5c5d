//! Short help, and the names that options take.

use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::Error;
use clap::{Arg, Command};

/// Shows only these arguments, and those that are positional, in the help of `-h`.
pub(crate) fn brief(shown: &'static [&'static str]) -> impl Fn(Arg) -> Arg {
    move |arg| {
        let hidden = !arg.is_positional() && !shown.contains(&arg.get_id().as_str());
        arg.hide_short_help(hidden)
    }
}

/// A parser of values that have names. A shell completes the names; the errors are those of the value.
#[derive(Clone)]
pub(crate) struct Named<T>(&'static [&'static str], PhantomData<fn() -> T>);

/// The parser of values with these names.
pub(crate) const fn named<T>(names: &'static [&'static str]) -> Named<T> {
    Named(names, PhantomData)
}

impl<T: FromStr<Err: Display> + Clone + Send + Sync + 'static> TypedValueParser for Named<T> {
    type Value = T;

    fn parse_ref(&self, cmd: &Command, arg: Option<&Arg>, value: &std::ffi::OsStr) -> Result<T, Error> {
        let parse = |text: &str| text.parse::<T>().map_err(|error| error.to_string());
        TypedValueParser::parse_ref(&parse, cmd, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(|name| PossibleValue::new(*name))))
    }
}

/// Decoding methods.
pub(crate) const METHODS: &[&str] =
    &["base", "args", "cd", "best-of-n", "soft-best-of-n", "follower", "blockwise", "particles"];
/// Which continuation of a block is kept.
pub(crate) const KEEP: &[&str] = &["best", "draw"];
/// Shaping rules.
pub(crate) const RULES: &[&str] =
    &["raw", "hard", "srs", "mean-soft", "minmax", "meanstd", "srs-std", "cap", "log-sigmoid", "par"];
/// What `--dtype` is.
pub(crate) const DTYPE: &str = "Data type of the weights in memory: f32, bf16, int8, q4 (rounded to blocks of 4 bits), or native (the blocks \
    of a GGUF file as they are, all else as bf16). [default: native for the name of a .gguf file, else bf16]";
/// Data types of weights.
pub(crate) const DTYPES: &[&str] = &["f32", "bf16", "int8", "q4", "native"];
/// Data types of keys and values.
pub(crate) const KV_DTYPES: &[&str] = &["f32", "bf16"];
/// Devices.
pub(crate) const DEVICES: &[&str] = &["cpu", "cuda", "metal", "candle"];
/// Text formats.
pub(crate) const FORMATS: &[&str] = &["chat", "raw"];
/// Budgets of the bound.
pub(crate) const BUDGETS: &[&str] = &["paper", "reference", "reference-step", "reference-offline"];

#[cfg(test)]
mod tests {
    use stackelberg_decoding::{Keep, Method};
    use stackelberg_engine::reward::TextFormat;
    use stackelberg_engine::{Device, Dtype, KvDtype};
    use stackelberg_shaping::{Budget, Rule};

    use super::*;

    fn all_parse<T: FromStr>(names: &[&str]) -> bool {
        names.iter().all(|name| name.parse::<T>().is_ok())
    }

    #[test]
    fn names_are_those_of_the_values() {
        assert_eq!(METHODS, Method::ALL.map(Method::name));
        assert_eq!(KEEP, Keep::ALL.map(Keep::name));
        assert_eq!(RULES.len(), Rule::ALL.len());
        assert!(
            all_parse::<Rule>(RULES)
                && all_parse::<Dtype>(DTYPES)
                && all_parse::<KvDtype>(KV_DTYPES)
                && all_parse::<Device>(DEVICES[..1].as_ref())
        );
        assert!(all_parse::<TextFormat>(FORMATS));
        assert!(BUDGETS.iter().all(|name| *name == "reference" || name.parse::<Budget>().is_ok()));
    }
}
