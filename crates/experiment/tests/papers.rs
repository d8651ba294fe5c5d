//! The experiments of the paper's settings, as far as they can be checked without servers.

use std::error::Error;
use std::fs;
use std::path::Path;

use stackelberg_decoding::Method;
use stackelberg_experiment::{Experiment, Size};

/// All files of the paper's settings, read from a folder with prompts.
fn papers() -> Result<Vec<(String, Experiment)>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for prompts in ["hh-test", "hh-train", "shp-test", "shp-train"] {
        fs::write(folder.path().join(format!("{prompts}.jsonl")), "{\"prompt\": \"Hi\"}\n")?;
    }
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut papers = Vec::new();
    for file in fs::read_dir(files)? {
        let (name, file) = {
            let file = file?;
            (file.file_name().into_string().unwrap_or_default(), file.path())
        };
        if name.starts_with("paper-") {
            let text = fs::read_to_string(file)?;
            papers.push((name.clone(), Experiment::from_text(&text, &folder.path().join(&name))?));
        }
    }
    Ok(papers)
}

/// The settings with a policy on a server need nothing that a server cannot do, and have the paper's numbers.
#[test]
fn the_papers_settings_can_be_planned() -> Result<(), Box<dyn Error>> {
    let papers = papers()?;
    assert_eq!(papers.len(), 5);
    for (name, paper) in papers {
        assert_eq!(paper.decoding.max_new_tokens(), 128, "{name}");
        let methods: Vec<Method> = paper.methods.iter().map(|entry| entry.method).collect();
        let size = Size::of(&paper, 300);
        if name.starts_with("paper-cd") {
            assert_eq!(methods, [Method::Cd]);
            assert_eq!((size.settings, size.answers), (46, 27_600), "{name}");
            continue;
        }
        let addresses = [&paper.policy.model, &paper.rewards.guide, &paper.rewards.held_out[0]];
        assert!(addresses.iter().all(|name| name.contains("http://127.0.0.1:800")), "{name}");
        assert!(paper.policy.tokenizer.is_some() && paper.values.is_none(), "{name}");
        let all = [Method::BestOfN, Method::Blockwise, Method::Particles, Method::Args];
        assert_eq!(methods, all, "{name}");
        // The guide's page has these numbers.
        assert_eq!((size.settings, size.answers, size.tokens), (65, 39_000, 53_836_800), "{name}");
    }
    Ok(())
}
