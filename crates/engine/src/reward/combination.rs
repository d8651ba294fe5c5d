//! Combinations of several rewards, written as expressions such as `helpful*0.7+harmless*0.3`.
//!
//! ```text
//! reward = term {"+" term}                    a weighted sum
//! term   = one ["*" number] | number "*" one
//! one    = "min(" reward {"," reward} ")"     the smallest of several
//!        | "lex(" {reward ">=" number ","} reward ")"     constraints, the most important first
//!        | "(" reward ")" | name
//! ```
//!
//! A name that contains any of `+ * , ( ) "` or a space must be in double quotes, unless it is the whole expression.
//! `program:COMMAND` extends to the end of the expression.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::text::RewardFormat;

/// An expression that combines several rewards into one.
#[derive(Debug, Clone, PartialEq)]
pub struct Combination {
    names: Vec<String>,
    whole: Expression,
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    /// The reward with this index.
    One(usize),
    /// Weighted terms.
    Sum(Vec<(f64, Expression)>),
    Min(Vec<Expression>),
    /// Constraints with their lower bounds, the most important first, and the reward that counts if all are met.
    Lex(Vec<(Expression, f64)>, Box<Expression>),
}

/// Limit of the last reward of `lex` and of shortfalls. It ensures that a text that meets all constraints never has a
/// lower reward than one that misses a constraint.
const REACH: f64 = 10.0;

impl Combination {
    /// A single reward, whatever characters its name contains.
    pub fn one(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()], whole: Expression::One(0) }
    }

    /// The names of the combined rewards, each once, in the order of their first occurrence.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The same combination of rewards with other names.
    pub fn renamed(&self, name: impl Fn(&str) -> String) -> Self {
        Self { names: self.names.iter().map(|old| name(old)).collect(), whole: self.whole.clone() }
    }

    /// The name of the reward, if the expression is a single reward without a weight.
    pub fn only(&self) -> Option<&str> {
        matches!(self.whole, Expression::One(_)).then(|| self.names[0].as_str())
    }

    /// The combined reward of a text with these rewards, one for each name. It is NaN if one of them is not finite.
    ///
    /// `lex` with constraints `r_1 >= t_1, ..., r_n >= t_n` and a last reward `r` is `r`, clamped to [-10, 10], if all
    /// constraints are met. If the `i`-th is the first one that is missed, it is `-20 (n - i + 1) - min(t_i - r_i, 10)`.
    /// This is lower than for all texts that first miss a less important constraint, and the lower, the larger the
    /// shortfall is.
    ///
    /// # Panics
    /// There are fewer rewards than names.
    pub fn of(&self, parts: &[f64]) -> f64 {
        if parts.iter().all(|part| part.is_finite()) { self.whole.of(parts) } else { f64::NAN }
    }

    /// The combined rewards of several texts, from `parts[reward][text]`.
    pub(super) fn of_texts(&self, parts: &[Vec<f64>]) -> Vec<f64> {
        let texts = 0..parts.first().map_or(0, Vec::len);
        let of_text = |text| parts.iter().map(|part| part[text]).collect::<Vec<_>>();
        texts.map(|text| self.of(&of_text(text))).collect()
    }
}

/// The most that an expression may multiply a reward by.
const MOST: f64 = 1e9;

impl Expression {
    /// What it multiplies a reward by, at most.
    fn reach(&self) -> f64 {
        match self {
            Self::One(_) => 1.0,
            Self::Sum(terms) => terms.iter().map(|(weight, term)| weight.abs() * term.reach()).sum(),
            Self::Min(of) => of.iter().map(Self::reach).fold(0.0, f64::max),
            Self::Lex(constraints, last) => {
                constraints.iter().map(|(constraint, _)| constraint.reach()).fold(last.reach(), f64::max)
            }
        }
    }

    fn of(&self, parts: &[f64]) -> f64 {
        match self {
            Self::One(i) => parts[*i],
            Self::Sum(terms) => terms.iter().map(|(weight, term)| weight * term.of(parts)).sum(),
            Self::Min(of) => of.iter().map(|x| x.of(parts)).fold(f64::INFINITY, f64::min),
            Self::Lex(constraints, last) => {
                for (i, (constraint, bound)) in constraints.iter().enumerate() {
                    let short = bound - constraint.of(parts);
                    if short > 0.0 {
                        return -2.0 * REACH * (constraints.len() - i) as f64 - short.min(REACH);
                    }
                }
                last.of(parts).clamp(-REACH, REACH)
            }
        }
    }

    fn write(&self, names: &[String], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(i) if needs_quotes(&names[*i]) => write!(f, "\"{}\"", names[*i]),
            Self::One(i) => f.write_str(&names[*i]),
            Self::Sum(terms) => {
                for (i, (weight, term)) in terms.iter().enumerate() {
                    f.write_str(if i > 0 { "+" } else { "" })?;
                    let (open, close) = if let Self::Sum(_) = term { ("(", ")") } else { ("", "") };
                    f.write_str(open)?;
                    term.write(names, f)?;
                    f.write_str(close)?;
                    if *weight != 1.0 {
                        write!(f, "*{weight}")?;
                    }
                }
                Ok(())
            }
            Self::Min(of) => {
                for (i, one) in of.iter().enumerate() {
                    f.write_str(if i > 0 { "," } else { "min(" })?;
                    one.write(names, f)?;
                }
                f.write_str(")")
            }
            Self::Lex(constraints, last) => {
                f.write_str("lex(")?;
                for (constraint, bound) in constraints {
                    constraint.write(names, f)?;
                    write!(f, ">={bound},")?;
                }
                last.write(names, f)?;
                f.write_str(")")
            }
        }
    }
}

/// Writes the expression, so that it can be parsed again.
impl Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only() {
            Some(name) => f.write_str(name),
            None => self.whole.write(&self.names, f),
        }
    }
}

impl FromStr for Combination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, rest: text, names: Vec::new(), depth: 0 };
        let whole = reader.sum()?;
        match reader.peek() {
            None if whole.reach() > MOST => {
                Err(format!("'{text}' multiplies a reward by more than {MOST:e}: use smaller weights"))
            }
            None => Ok(Self { names: reader.names, whole }),
            Some('(') => Err(reader.wrong("'+', '*' or the end (functions are min and lex)")),
            Some(_) => Err(reader.wrong("'+', '*' or the end")),
        }
    }
}

/// Whether a character ends a name without quotes.
fn is_sign(c: char) -> bool {
    matches!(c, '+' | '*' | ',' | '(' | ')' | '"') || c.is_whitespace()
}

/// Whether a name needs quotes to be parsed as one name. A name that contains quotes is a program's and comes last.
fn needs_quotes(name: &str) -> bool {
    let signs = name.contains(is_sign) || name.contains(">=") || is_program(name);
    signs && !name.contains('"')
}

/// Whether a name is `program:...` or `FORMAT:program:...`.
fn is_program(name: &str) -> bool {
    let bare = match name.split_once(':') {
        Some((format, rest)) if format.parse::<RewardFormat>().is_ok() => rest,
        _ => name,
    };
    bare.starts_with("program:")
}

/// The maximum nesting depth of an expression.
const DEPTH: usize = 32;

/// A recursive-descent parser.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    names: Vec<String>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn sum(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.wrong("a lower nesting depth"));
        }
        let mut terms = vec![self.term()?];
        while self.take("+") {
            terms.push(self.term()?);
        }
        self.depth -= 1;
        match (terms.len(), terms.remove(0)) {
            (1, (1.0, term)) => Ok(term),
            (_, first) => {
                terms.insert(0, first);
                Ok(Expression::Sum(terms))
            }
        }
    }

    fn term(&mut self) -> Result<(f64, Expression), String> {
        let before = self.rest;
        if let Some(weight) = self.number()
            && self.take("*")
        {
            return Ok((weight, self.one()?));
        }
        self.rest = before;
        let one = self.one()?;
        let weight = if self.take("*") {
            self.number().ok_or_else(|| self.wrong("a finite weight, as in a*0.7,"))?
        } else {
            1.0
        };
        Ok((weight, one))
    }

    fn one(&mut self) -> Result<Expression, String> {
        if self.take("(") {
            let inner = self.sum()?;
            return self.close().map(|()| inner);
        }
        if self.take("min(") {
            let mut of = vec![self.sum()?];
            while self.take(",") {
                of.push(self.sum()?);
            }
            return self.close().map(|()| Expression::Min(of));
        }
        if self.take("lex(") {
            let mut constraints = Vec::new();
            loop {
                let one = self.sum()?;
                if !self.take(">=") {
                    if constraints.is_empty() {
                        return Err(self.wrong("'>=' and a number, as in lex(a>=0,b),"));
                    }
                    let lex = Expression::Lex(constraints, Box::new(one));
                    return self.close().map(|()| lex);
                }
                let bound = self.number().ok_or_else(|| self.wrong("a number, as in a>=0,"))?;
                constraints.push((one, bound));
                if !self.take(",") {
                    return Err(self.wrong("',' and the reward that counts if the constraints are met"));
                }
            }
        }
        self.name()
    }

    fn name(&mut self) -> Result<Expression, String> {
        self.peek();
        let name = if self.take("\"") {
            let Some((name, rest)) = self.rest.split_once('"') else {
                return Err(self.wrong("a closing '\"'"));
            };
            self.rest = rest;
            name
        } else {
            let end = match is_program(self.rest) {
                true => self.rest.len(),
                false => {
                    let ends = [self.rest.find(is_sign), self.rest.find(">=")];
                    ends.into_iter().flatten().min().unwrap_or(self.rest.len())
                }
            };
            let (name, rest) = self.rest.split_at(end);
            self.rest = rest;
            name
        };
        if name.is_empty() {
            return Err(self.wrong("the name of a reward"));
        }
        let known = self.names.iter().position(|known| known == name);
        Ok(Expression::One(known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })))
    }

    /// Parses a finite number, if one comes next.
    fn number(&mut self) -> Option<f64> {
        self.peek();
        let end = self.rest.find(is_sign).unwrap_or(self.rest.len());
        let number = self.rest[..end].parse::<f64>().ok().filter(|x| x.is_finite())?;
        self.rest = &self.rest[end..];
        Some(number)
    }

    fn close(&mut self) -> Result<(), String> {
        if self.take(")") { Ok(()) } else { Err(self.wrong("')'")) }
    }

    fn take(&mut self, sign: &str) -> bool {
        self.peek();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The next character after any spaces.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn wrong(&self, expected: &str) -> String {
        let at = match self.rest {
            "" => "at its end".to_owned(),
            rest => format!("before '{rest}'"),
        };
        format!(
            "the reward '{}' cannot be parsed: {expected} is expected {at}; a name with operators or spaces must be \
             in double quotes",
            self.text
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Combination {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn one_name_is_itself() {
        let names = [
            "harmless",
            "a/b-c_d.safetensors",
            "folder#GOOD-BAD",
            "http://localhost:8000/score?model=a#b",
            "program:python3 score.py --add 1+2 (x)",
            "hh:program:python3 \"score.py\" * 2",
            "pypi:PACKAGE==1.0/path",
        ];
        for name in names {
            let one = read(name);
            assert_eq!((one.only(), one.names()), (Some(name), &[name.to_owned()][..]));
            assert_eq!((one.to_string(), one.of(&[-2.5])), (name.to_owned(), -2.5));
        }
    }

    #[test]
    fn sums_minima_and_constraints_are_what_they_say() {
        let sum = read("a*0.7+b*0.3");
        assert_eq!(sum.names(), ["a", "b"]);
        assert_eq!((sum.only(), sum.of(&[1.0, 2.0])), (None, 0.7 + 0.6));
        assert_eq!(read("2 * a + b*-1 + a").of(&[1.0, 5.0]), -2.0);
        assert_eq!(read("a*2").of(&[3.0]), 6.0);
        assert_eq!(read("min(a, b+c, \"d,e\"*0.5)*2").of(&[3.0, 1.0, 1.5, 4.0]), 4.0);
        assert!(read("min(a,b)").of(&[1.0, f64::NAN]).is_nan());
        assert!(read("min(a,b)").of(&[f64::NAN, 1.0]).is_nan());
        assert!(read("lex(a>=0,b)").of(&[f64::NAN, 1.0]).is_nan());
        assert!(read("lex(a>=0,b)").of(&[-1.0, f64::INFINITY]).is_nan());
        let piped = read("harmless*0.5+program:cat | head -n 1");
        assert_eq!(piped.names(), ["harmless", "program:cat | head -n 1"]);
    }

    /// Texts are ordered by the most important constraint that they miss, then by the shortfall, then by the last reward.
    #[test]
    fn lex_orders() {
        let lex = read("lex(a >= 0, b >= -1.5, c)");
        let ordered = [
            [-20.0, 9.0, 9.0],
            [-2.0, 9.0, 9.0],
            [-1.0, -9.0, -9.0],
            [0.0, -3.0, 9.0],
            [5.0, -2.0, -9.0],
            [0.0, -1.5, -12.0],
            [9.0, 0.0, 0.5],
            [0.1, 3.0, 0.75],
        ];
        let rewards = ordered.map(|parts| lex.of(&parts));
        assert!(rewards.is_sorted_by(|a, b| a < b), "{rewards:?}");
        assert_eq!(rewards[6], 0.5);
        assert_eq!(rewards[2], -41.0);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let texts = [
            "a*0.7+b*0.3",
            "min(a,\"b c\"*2+(d+e)*-1.5)",
            "lex(a>=0,min(b,c)>=-1.5,d*0.1)",
            "\"x+y\"+\"x\"",
            "\"program:cat\"+b",
            "\"a>=b\"*2",
            "a+program:x \"y\"",
        ];
        for text in texts {
            let read_once = read(text);
            assert_eq!(read(&read_once.to_string()), read_once, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let refused = [
            ("", "the name of a reward is expected at its end"),
            ("a+", "the name of a reward is expected at its end"),
            ("a**2", "a finite weight, as in a*0.7, is expected before '*2'"),
            ("a*b", "a finite weight, as in a*0.7, is expected before 'b'"),
            ("a*inf", "a finite weight, as in a*0.7, is expected before 'inf'"),
            ("a*1e308", "multiplies a reward by more than 1e9: use smaller weights"),
            ("min(a,(b*1e6)*1e6)", "multiplies a reward by more than 1e9: use smaller weights"),
            ("min(a,b", "')' is expected at its end"),
            ("a b", "'+', '*' or the end is expected before 'b'"),
            ("lex(a>=x,b)", "a number, as in a>=0, is expected before 'x,b)'"),
            (
                "lex(a>=0)",
                "',' and the reward that counts if the constraints are met is expected before ')'",
            ),
            ("lex(a>0,b)", "'>=' and a number, as in lex(a>=0,b), is expected before ',b)'"),
            ("max(a,b)", "(functions are min and lex) is expected before '(a,b)'"),
            ("\"a", "a closing '\"' is expected before 'a'"),
            ("a>=1", "'+', '*' or the end is expected before '>=1'"),
        ];
        for (text, expected) in refused {
            let error = text.parse::<Combination>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let deep = "(".repeat(100_000);
        assert!(deep.parse::<Combination>().unwrap_err().contains("a lower nesting depth"));
    }
}
