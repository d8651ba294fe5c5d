//! The decoding methods.

use std::fmt;
use std::str::FromStr;

use stackelberg_shaping::{Rule, Shaping};

/// Where the next token comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// The base policy, unguided.
    Base,
    /// Token-level search: the reward scores the candidates of every step.
    #[default]
    Args,
    /// Controlled decoding: a value head scores the candidates of every step, `log p + strength * V`.
    Cd,
    /// The best of `samples` answers of the base policy.
    BestOfN,
    /// One of `samples` answers, drawn by softmax of strength times reward.
    SoftBestOfN,
    /// One of `samples` answers, drawn by softmax of strength times shaped reward: the follower itself.
    Follower,
    /// Block by block, one of `samples` continuations by the base policy is kept (Mudgal et al. 2024, arXiv 2310.17022). Their
    /// scores are rewards of the texts so far, or values; which is kept, [`Keep`] says. What is chosen among finished
    /// answers is chosen by their rewards.
    Blockwise,
    /// Sequential Monte Carlo: `samples` answers are decoded together and weighted by `exp(strength * shaped score)`. When few
    /// have most of the weight, they are resampled at the end of a block.
    Particles,
}

/// Which of several continuations is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// The one with the highest score.
    #[default]
    Best,
    /// One that is drawn by softmax of strength times shaped score.
    Draw,
}

impl Keep {
    /// Both.
    pub const ALL: [Keep; 2] = [Keep::Best, Keep::Draw];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Keep::Best => "best",
            Keep::Draw => "draw",
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let keep = Self::ALL.into_iter().find(|keep| keep.name() == name);
        keep.ok_or_else(|| format!("'{name}' must be best or draw"))
    }
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 8] = [
        Method::Base,
        Method::Args,
        Method::Cd,
        Method::BestOfN,
        Method::SoftBestOfN,
        Method::Follower,
        Method::Blockwise,
        Method::Particles,
    ];

    /// The method's name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Base => "base",
            Method::Args => "args",
            Method::Cd => "cd",
            Method::BestOfN => "best-of-n",
            Method::SoftBestOfN => "soft-best-of-n",
            Method::Follower => "follower",
            Method::Blockwise => "blockwise",
            Method::Particles => "particles",
        }
    }

    /// The default shaping. Values of shaped rewards are not shaped again, so [`Method::Cd`] only has a strength; 4 was
    /// chosen on prompts of HH-RLHF's eval split.
    pub fn default_shaping(self) -> Shaping {
        match self {
            Method::Cd => Shaping { rule: Rule::Raw, strength: 4.0, ..Shaping::default() },
            _ => Shaping::default(),
        }
    }

    /// Whether it chooses one of several finished answers.
    pub fn chooses_answers(self) -> bool {
        matches!(self, Method::BestOfN | Method::SoftBestOfN | Method::Follower)
    }

    /// Whether it decodes several continuations block by block.
    pub fn decodes_blocks(self) -> bool {
        matches!(self, Method::Blockwise | Method::Particles)
    }

    /// Whether it chooses among samples of the base policy, answers or parts of answers: at temperature 0, all of them
    /// would be the same.
    pub fn chooses(self) -> bool {
        self.chooses_answers() || self.decodes_blocks()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Self::ALL.into_iter().find(|m| m.name() == name).ok_or_else(|| {
            format!("unknown method '{name}': known are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}
