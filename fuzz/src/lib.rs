//! What the targets share: a folder in memory that stands for a stranger's checkpoint, and the rule that the
//! loading functions may refuse it but not panic.
//!
//! The input of a target is one file, or its header, behind a byte that chooses the checkpoint around it; the
//! rest of the checkpoint is one of `crates/engine/tests/families`. `seeds.py` writes whole ones to begin with.

use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use stackelberg_engine::model::Model;
use stackelberg_engine::reward::{Classifier, TextFormat};
use stackelberg_engine::{Checkpoint, Dtype, Embedder, kernel};

/// The checkpoints that a case may begin with; the first byte of an input chooses. `seeds.py` has the same list.
pub const FAMILIES: [&str; 20] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "gemma2",
    "gemma2-scaled",
    "gemma3",
    "phi3",
    "smollm3",
    "olmo2",
    "gpt2",
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "deberta",
    "deberta-v2",
    "modernbert",
    "modernbert-biased",
];

/// A file of a family's folder.
pub fn of_family(family: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/engine/tests/families").join(family).join(file)
}

/// The family that the first byte of an input chooses, and the rest of the input.
pub fn family(data: &[u8]) -> Option<(&'static str, &[u8])> {
    let (&first, rest) = data.split_first()?;
    Some((FAMILIES[usize::from(first) % FAMILIES.len()], rest))
}

/// The folder that the cases of this process are written to, in memory where the system has such a place.
pub fn folder() -> &'static Path {
    thread_local! {
        static FOLDER: &'static Path = {
            let memory = Path::new("/dev/shm");
            let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
            let folder = place.join(format!("stackelberg-fuzz-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("a folder for the cases");
            Box::leak(folder.into_boxed_path())
        };
    }
    FOLDER.with(|folder| *folder)
}

/// Makes the folder the family's, but for one file, which has this content.
pub fn lay_out(family: &str, file: &str, content: &[u8]) {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        if name != file {
            let own = of_family(family, name);
            let from = if own.is_file() { own } else { of_family("bert", name) };
            fs::copy(from, folder().join(name)).expect("a copy of a family's file");
        }
    }
    fs::write(folder().join(file), content).expect("the case's file");
}

/// Loads what the folder holds in every way that fits, and uses it a little.
pub fn load(folder: &Path) {
    if Classifier::is_in(folder) {
        if let Ok(classifier) = Classifier::load(folder, Some("good")) {
            let _ = classifier.logits(&["w5 w6", ""]);
        }
        if let Ok(embedder) = Embedder::load(folder) {
            let _ = embedder.embed(&["w5 w6"]);
        }
        return;
    }
    if let Ok(checkpoint) = Checkpoint::load(folder, Dtype::F32) {
        try_out(&checkpoint);
    }
}

/// Reads a text with the checkpoint.
pub fn try_out(checkpoint: &Checkpoint) {
    let tokens = checkpoint.tokens("w5 w6 a", TextFormat::Raw).unwrap_or_default();
    let _ = checkpoint.tokenizer.decode(&tokens, true);
    read(&checkpoint.model);
}

/// Reads tokens with the model.
pub fn read(model: &Model) {
    let _ = model.prefill(&[5, 6, 7]).map(|(_, hidden)| model.logits(&hidden));
}

/// Runs a case: a panic that reaches us is a finding. Those that the engine catches at its boundary are not, so
/// the fuzzer's own hook, which ends the process at any panic, gives way to one that remembers.
pub fn case(run: impl FnOnce()) {
    static ONCE: Once = Once::new();
    thread_local! {
        static LAST: RefCell<String> = const { RefCell::new(String::new()) };
    }
    ONCE.call_once(|| {
        kernel::set_threads(1);
        std::panic::set_hook(Box::new(|panic| LAST.with(|last| *last.borrow_mut() = panic.to_string())));
    });
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        eprintln!("{}", LAST.with(|last| last.borrow().clone()));
        std::process::abort();
    }
}
