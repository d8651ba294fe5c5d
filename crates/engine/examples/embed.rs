//! Embeds texts: reads JSON strings, one per line, and writes JSON arrays. Times are written to standard error.
//!
//! `cargo run --release --example embed -- all-minilm-l6-v2 < texts.jsonl > embeddings.jsonl`

use std::io::{BufRead, Write};
use std::time::Instant;

use stackelberg_engine::Embedder;
use stackelberg_hub::Hub;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reference = std::env::args().nth(1).unwrap_or_else(|| "all-minilm-l6-v2".to_owned());
    let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let texts: Vec<String> = lines.iter().map(|l| serde_json::from_str(l)).collect::<Result<_, _>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();

    let began = Instant::now();
    let hub = Hub::from_variables(|name| std::env::var_os(name));
    let embedder = Embedder::load(&hub.resolve(&reference, &|_| ())?)?;
    let loaded = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let found = embedder.embed(&texts)?;
    let took = began.elapsed().as_secs_f64();

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for embedding in found {
        serde_json::to_writer(&mut out, &embedding)?;
        out.write_all(b"\n")?;
    }
    eprintln!("{}", serde_json::json!({"texts": texts.len(), "load_s": loaded, "embed_s": took}));
    Ok(())
}
