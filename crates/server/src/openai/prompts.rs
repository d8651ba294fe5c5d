//! Prompts and stop texts: one or several.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use utoipa::ToSchema;

/// The prompts of a completion: a text, texts, token ids, or lists of token ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Prompts {
    /// Texts.
    Texts(Vec<String>),
    /// Token ids.
    Ids(Vec<Vec<u32>>),
}

/// How [`Prompts`] are written.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it is a schema only")]
pub(crate) enum PromptsSchema {
    /// One text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// The token ids of one prompt.
    Ids(Vec<u32>),
    /// The token ids of several prompts.
    IdLists(Vec<Vec<u32>>),
}

/// What the first element of a list is.
enum First {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a token id, or a list of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<First, E> {
                Ok(First::Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<First, E> {
                let outside = || E::custom(format!("token {id} is outside any vocabulary"));
                u32::try_from(id).map(First::Id).map_err(|_| outside())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = list.next_element()? {
                    ids.push(id);
                }
                Ok(First::Ids(ids))
            }
        }
        from.deserialize_any(Any)
    }
}

/// Written by hand: an untagged enum would keep a copy of all that it reads.
impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of texts, a list of token ids, or a list of such lists")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts::Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
                Ok(match list.next_element()? {
                    None => Prompts::Texts(Vec::new()),
                    Some(First::Text(first)) => Prompts::Texts(rest(first, list)?),
                    Some(First::Id(first)) => Prompts::Ids(vec![rest(first, list)?]),
                    Some(First::Ids(first)) => Prompts::Ids(rest(first, list)?),
                })
            }
        }
        from.deserialize_any(Any)
    }
}

/// A list of one kind.
fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(first: T, mut list: A) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(next) = list.next_element()? {
        all.push(next);
    }
    Ok(all)
}

/// One text, or several.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Prompts;

    #[test]
    fn prompts_are_texts_or_ids() {
        let read = |json: &str| serde_json::from_str::<Prompts>(json).map_err(|error| error.to_string());
        assert_eq!(read("\"a\""), Ok(Prompts::Texts(vec!["a".to_owned()])));
        assert_eq!(read("[\"a\",\"b\"]"), Ok(Prompts::Texts(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(read("[1,2]"), Ok(Prompts::Ids(vec![vec![1, 2]])));
        assert_eq!(read("[[1],[2,3],[]]"), Ok(Prompts::Ids(vec![vec![1], vec![2, 3], vec![]])));
        assert_eq!(read("[]"), Ok(Prompts::Texts(Vec::new())));
        for wrong in
            ["[1,\"a\"]", "[\"a\",1]", "[-1]", "[4294967296]", "[[1],2]", "1", "null", "{}", "[1.5]"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
