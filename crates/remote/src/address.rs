//! Addresses of servers.

use reqwest::Url;
use stackelberg_http::redacted;

/// Parses an `http://` or `https://` address. The scheme may be in upper case.
///
/// # Errors
/// What is wrong with it. The message does not contain the address.
pub(crate) fn parse(address: &str) -> Result<Url, String> {
    let url = Url::parse(address).map_err(|e| e.to_string())?;
    if url.path().contains(',') || url.host_str().is_some_and(|host| host.contains(',')) {
        return Err(
            "a comma separates addresses, each of which begins with http:// or https://".to_owned()
        );
    }
    match ["http", "https"].contains(&url.scheme()) && url.host_str().is_some() {
        true => Ok(url),
        false => Err("give an address that begins with http:// or https://".to_owned()),
    }
}

/// The addresses in a list. A comma separates two of them where another `http://` or `https://` follows.
pub(crate) fn several(list: &str) -> impl Iterator<Item = &str> {
    stackelberg_http::addresses(list).map(str::trim).filter(|address| !address.is_empty())
}

/// Splits `ADDRESSES#NAME` into the list of addresses and the model's name, which is empty if there is none.
pub(crate) fn split_name(addresses: &str) -> (&str, &str) {
    addresses.split_once('#').unwrap_or((addresses, ""))
}

/// Splits off the `model` of a query, which is sent in the body of requests; all else stays in the address.
pub(crate) fn split_model(address: &str) -> (String, Option<String>) {
    let Some((before, query)) = address.split_once('?') else {
        return (address.trim_end_matches('/').to_owned(), None);
    };
    let before = before.trim_end_matches('/');
    let (model, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').filter(|pair| !pair.is_empty()).partition(|pair| pair.starts_with("model="));
    let model = model.last().and_then(|pair| pair.split_once('=')).map(|(_, model)| model.to_owned());
    (if rest.is_empty() { before.to_owned() } else { format!("{before}?{}", rest.join("&")) }, model)
}

/// The secrets of an address, as it spells them and decoded: its password and the values of its query.
pub(crate) fn secrets(url: &Url) -> Vec<String> {
    let query = url.query().unwrap_or_default().split('&');
    let values = query.map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
    let shown = |value: &&str| !value.is_empty() && redacted(url.as_str()).contains(value);
    let spelt = values.filter(|value| !shown(value)).chain(url.password());
    let both = spelt.flat_map(|secret| [secret.to_owned(), decoded(secret)]);
    both.filter(|secret| !secret.is_empty()).collect()
}

/// A text without percent signs of an address.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a text begins like an HTTP address.
pub(crate) fn is_http(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_may_be_in_upper_case() {
        assert_eq!(parse("HTTP://Host/score").unwrap().as_str(), "http://host/score");
        assert!(
            is_http("HTTPS://host") && !is_http("ftp://host") && !is_http("http") && !is_http("a/b")
        );
        for wrong in ["ftp://host/score", "host/score", "http://", "http://user:p#ss@host/score"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn commas_separate_addresses() {
        let all: Vec<&str> = several("http://a/v1, HTTPS://b/v1?x=1,2,,http://c").collect();
        assert_eq!(all, ["http://a/v1", "HTTPS://b/v1?x=1,2,", "http://c"]);
        assert_eq!(several("").count(), 0);
        for wrong in ["http://a/v1,b:80/v1", "http://a,b/v1"] {
            assert!(parse(wrong).unwrap_err().starts_with("a comma separates addresses"), "{wrong}");
        }
    }

    #[test]
    fn only_the_model_leaves_the_query() {
        let split = |address: &str| {
            let (address, model) = split_model(address);
            (address, model.unwrap_or_default())
        };
        let pair = |address: &str, model: &str| (address.to_owned(), model.to_owned());
        assert_eq!(split("http://h/score/"), pair("http://h/score", ""));
        assert_eq!(split("http://h/score?model=a@b"), pair("http://h/score", "a@b"));
        assert_eq!(split("http://h/score?k=1&model=m&t=2"), pair("http://h/score?k=1&t=2", "m"));
    }

    #[test]
    fn secrets_are_known_as_spelt_and_decoded() {
        let url = parse("http://me:p%40s@h/score?api_key=sk%2F1&api-version=2").unwrap();
        assert_eq!(secrets(&url), ["sk%2F1", "sk/1", "p%40s", "p@s"]);
    }
}
