//! `stackelberg models`: what is known by name.

use std::io::Write;

use anyhow::Result;
use stackelberg_engine::source::{KNOWN, cached};

use crate::model::{BUILTIN, Builtin};

/// Prints names, sizes, licences and where things come from.
pub(crate) fn run() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<18} {:>7}  {:<11} {:<8} what and where from", "name", "size", "licence", "here")?;
    for known in KNOWN {
        let size = match known.size {
            small if small < 10_000_000 => format!("{} kB", small / 1000),
            large => format!("{} MB", large / 1_000_000),
        };
        let here = if cached(known).is_some() { "cached" } else { "-" };
        writeln!(out, "{:<18} {size:>7}  {:<11} {here:<8} {}", known.name, known.licence, known.about)?;
        writeln!(out, "{:<48} {}", "", known.reference)?;
    }
    writeln!(out, "\nbuilt-in rewards")?;
    for Builtin { name, base, about, bytes } in BUILTIN {
        let size = bytes.len().div_ceil(1000);
        writeln!(out, "{name:<18} {size:>4} kB  {about}")?;
        writeln!(out, "{:<27} a head on {base}", "")?;
    }
    writeln!(out, "\nAlso: a folder, a .gguf file, hf:ORG/NAME[@REV], pypi:PACKAGE==VERSION/PATH.")?;
    Ok(())
}
