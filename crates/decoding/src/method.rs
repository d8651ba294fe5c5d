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
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 6] =
        [Method::Base, Method::Args, Method::Cd, Method::BestOfN, Method::SoftBestOfN, Method::Follower];

    /// The method's name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Base => "base",
            Method::Args => "args",
            Method::Cd => "cd",
            Method::BestOfN => "best-of-n",
            Method::SoftBestOfN => "soft-best-of-n",
            Method::Follower => "follower",
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
