//! Decoding settings in an experiment's file: the table `[decoding]`, and the own settings of an entry of `[[methods]]`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::de::{IntoDeserializer, value::StrDeserializer};
use serde::{Deserialize, forward_to_deserialize_any};
use stackelberg_decoding::Options;

/// Settings besides those of a shaping that every entry of `[[methods]]` has for itself, or `seeds` gives.
const OF_METHODS: [&str; 4] = ["method", "seed", "kl_budget", "perturbation"];
/// Settings that an entry of `[[methods]]` cannot have, and what gives them instead.
const ELSEWHERE: [(&str, &str); 14] = [
    ("seed", "`seeds`"),
    ("max_new_tokens", "[decoding]"),
    ("temperature", "[decoding]"),
    ("top_p", "[decoding]"),
    ("top_k", "[decoding]"),
    ("min_p", "[decoding]"),
    ("repetition_penalty", "[decoding]"),
    ("stop", "[decoding]"),
    ("no_eos", "[decoding]"),
    ("shaping", "`shapings`"),
    ("strength", "`strengths`"),
    ("kl_budget", "`kl_budgets`"),
    ("budget", "`reference`"),
    ("perturbation", "[[perturbed]]"),
];
/// Former names of settings.
const FORMER: [&str; 1] = ["min_entropy"];

/// Decoding settings that all methods share. Each method takes those that it uses.
#[derive(Debug, Clone)]
pub struct Decoding {
    /// The settings that are given, by the names of `stackelberg generate`, and the defaults of experiments.
    options: Options,
    /// The names of the settings that the file gives.
    given: Vec<&'static str>,
    /// Sequences decoded in parallel (batch size).
    pub batch_size: usize,
}

impl Default for Decoding {
    fn default() -> Self {
        let options = Options {
            max_new_tokens: Some(128),
            temperature: Some(1.0),
            candidates: Some(10),
            samples: Some(10),
            // The same base policy for all methods.
            policy_temperature: Some(1.0),
            ..Options::default()
        };
        Self { options, given: Vec::new(), batch_size: 20 }
    }
}

impl Decoding {
    /// The settings.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Sampling temperature; 0 is greedy.
    pub fn temperature(&self) -> f64 {
        self.options.temperature.unwrap_or(1.0)
    }

    /// Maximum new tokens.
    pub fn max_new_tokens(&self) -> usize {
        self.options.max_new_tokens.unwrap_or(128)
    }

    /// The names of the settings that the file gives.
    pub(crate) fn given(&self) -> &[&'static str] {
        &self.given
    }
}

impl<'de> Deserialize<'de> for Decoding {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Table)
    }
}

/// Reads the table `[decoding]`.
struct Table;

impl<'de> Visitor<'de> for Table {
    type Value = Decoding;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of decoding settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decoding, A::Error> {
        let mut decoding = Decoding::default();
        let mut given = Options::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "batch_size" {
                decoding.batch_size = map.next_value()?;
            } else if OF_METHODS.iter().chain(&Options::SHAPING).any(|of| *of == name) {
                return Err(A::Error::custom(format!(
                    "decoding.{name}: it is a setting of each method or of the experiment: give it there"
                )));
            } else {
                given = map.next_value_seed(Setting(&name))?.or(given);
            }
        }
        decoding.given = given.given().collect();
        decoding.options = given.or(decoding.options);
        Ok(decoding)
    }
}

/// An entry of `[[methods]]`: a table in which decoding settings stand between the fields of a struct. The struct is given
/// its own fields only; the settings are kept in `own`.
pub(crate) struct Entry<'o, D> {
    pub(crate) from: D,
    pub(crate) own: &'o mut Options,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Entry<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.from.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.from.deserialize_map(Fields { fields, own: self.own, visitor })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Gives a map to `visitor` without the decoding settings in it, which go to `own`.
struct Fields<'o, V> {
    fields: &'static [&'static str],
    own: &'o mut Options,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Without { fields: self.fields, own: self.own, map })
    }
}

/// A map without the decoding settings in it.
struct Without<'o, A> {
    fields: &'static [&'static str],
    own: &'o mut Options,
    map: A,
}

impl<A> Without<'_, A> {
    /// Why a field that is none of the entry's own cannot be given, if it cannot.
    fn refused(&self, name: &str) -> Option<String> {
        if let Some((_, place)) = ELSEWHERE.iter().find(|(field, _)| *field == name) {
            return Some(format!("{name} is not a setting of a single entry: give it in {place}"));
        }
        let known = FORMER.contains(&name) || Options::FIELDS.iter().any(|(field, _)| *field == name);
        let elsewhere = |name: &str| ELSEWHERE.iter().any(|(field, _)| *field == name);
        let settings = Options::FIELDS.iter().map(|(field, _)| *field);
        let settings = settings.filter(|field| !elsewhere(field) && !self.fields.contains(field));
        (!known).then(|| {
            let all = listed(self.fields.iter().copied().chain(settings));
            format!("unknown field `{name}`, expected one of {all}")
        })
    }
}

fn listed(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Without<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.map.next_key::<String>()? {
            if self.fields.contains(&name.as_str()) {
                let name: StrDeserializer<'_, A::Error> = name.as_str().into_deserializer();
                return seed.deserialize(name).map(Some);
            }
            if let Some(why) = self.refused(&name) {
                self.map.next_value_seed(Refused(why))?;
            }
            let read = self.map.next_value_seed(Setting(&name))?;
            *self.own = read.or(std::mem::take(self.own));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Refuses a value, so that the error has the value's place in the file.
struct Refused(String);

impl<'de> DeserializeSeed<'de> for Refused {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(D::Error::custom(self.0))
    }
}

/// Reads the value of one setting as [`Options`] of this setting alone, so that errors are those of the value.
struct Setting<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Setting<'_> {
    type Value = Options;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Options, D::Error> {
        Options::deserialize(One { name: self.0, value: Some(value) })
    }
}

/// A map of one entry.
struct One<'n, D> {
    name: &'n str,
    value: Option<D>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for One<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> MapAccess<'de> for One<'_, D> {
    type Error = D::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, D::Error> {
        let name: StrDeserializer<'_, D::Error> = self.name.into_deserializer();
        self.value.is_some().then(|| seed.deserialize(name)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, D::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(D::Error::custom("a setting has one value")),
        }
    }
}
