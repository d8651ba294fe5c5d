//! Secrets in addresses: what messages and records show instead.

use reqwest::Url;

/// Query parameters whose values are shown: they name what is asked, and are no secrets.
const SHOWN: [&str; 6] = ["model", "adapter", "deployment", "version", "api-version", "api_version"];

/// A text in which no address shows a secret: `http://***@host` instead of `http://user:password@host`, and
/// `?api_key=***` instead of `?api_key=KEY` (any parameter but those that name a model or a version).
///
/// ```
/// let shown = stackelberg_http::without_secrets("hh:http://me:secret@host/score?model=m&api_key=sk");
/// assert_eq!(shown, "hh:http://***@host/score?model=m&api_key=***");
/// ```
pub fn without_secrets(text: &str) -> String {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return redacted(text);
    }
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://") {
        let letters = rest[..at].chars().rev().take_while(char::is_ascii_alphabetic).count();
        let ends = |c: char| c.is_whitespace() || "\"'`".contains(c);
        let end = rest[at..].find(ends).map_or(rest.len(), |end| at + end);
        shown.push_str(&rest[..at - letters]);
        shown.push_str(&redacted(&rest[at - letters..end]));
        rest = &rest[end..];
    }
    shown + rest
}

/// One address without its secrets, or a list of [`addresses`] without theirs.
pub fn redacted(list: &str) -> String {
    addresses(list).map(one).collect::<Vec<_>>().join(",")
}

/// The addresses in a list: a comma separates two of them where `http://` or `https://` follows it.
pub fn addresses(list: &str) -> impl Iterator<Item = &str> {
    let begins = |text: &str| {
        let text = text.trim_start();
        let start = |known: &str| text.get(..known.len()).is_some_and(|x| x.eq_ignore_ascii_case(known));
        start("http://") || start("https://")
    };
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let all = rest?;
        let comma = all.match_indices(',').find(|(at, _)| begins(&all[at + 1..]));
        let (first, after) = comma.map_or((all, None), |(at, _)| (&all[..at], Some(&all[at + 1..])));
        rest = after;
        Some(first)
    })
}

fn one(address: &str) -> String {
    let address = without_user(address);
    let Some((before, query)) = address.split_once('?') else { return address };
    let (query, label) = match query.split_once('#') {
        Some((query, label)) => (query, format!("#{label}")),
        None => (query, String::new()),
    };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if !SHOWN.contains(&name.to_ascii_lowercase().as_str()) => format!("{name}=***"),
        Some(_) => pair.to_owned(),
        None if pair.is_empty() => String::new(),
        None => "***".to_owned(),
    };
    let query: Vec<String> = query.split('&').map(pair).collect();
    format!("{before}?{}{label}", query.join("&"))
}

fn without_user(address: &str) -> String {
    let is_clean = |url: Url| url.has_host() && url.username().is_empty() && url.password().is_none();
    if Url::parse(address).is_ok_and(is_clean) {
        return address.to_owned();
    }
    // An address that does not parse may have an '@' anywhere: everything before the last one is hidden.
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    match rest.rsplit_once('@') {
        Some((_, rest)) if scheme.is_empty() => format!("***@{rest}"),
        Some((_, rest)) => format!("{scheme}://***@{rest}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        for (address, shown) in [
            ("http://host:80/score?model=a@b", "http://host:80/score?model=a@b"),
            ("http://user:secret@host/score", "http://***@host/score"),
            ("http://secret@host/score", "http://***@host/score"),
            ("http://user:sec#ret@host/score", "http://***@host/score"),
            ("http://user:sec?ret/secret@host/score", "http://***@host/score"),
            ("HTTP://user:sec@ret@host/score", "HTTP://***@host/score"),
            ("user:secret@host", "***@host"),
            ("nonsense", "nonsense"),
            (
                "http://a/v1,http://u:p@b/v1, HTTPS://u:p@c,d",
                "http://a/v1,http://***@b/v1, HTTPS://***@c,d",
            ),
        ] {
            assert_eq!(redacted(address), shown, "{address}");
        }
    }

    #[test]
    fn secrets_in_queries_are_hidden() {
        for (address, shown) in [
            ("http://h/score?api_key=sk-1", "http://h/score?api_key=***"),
            ("http://h/score?api_key=sk=1&model=m#good", "http://h/score?api_key=***&model=m#good"),
            ("http://h/score?api-version=2&Token=t", "http://h/score?api-version=2&Token=***"),
            ("http://h/score?sk-1", "http://h/score?***"),
            ("https://u:p@h/score?key=k", "https://***@h/score?key=***"),
        ] {
            assert_eq!(redacted(address), shown, "{address}");
        }
    }

    #[test]
    fn addresses_within_texts_are_found() {
        for (text, shown) in [
            ("answer:HTTPS://me:p@h/predict#good", "answer:HTTPS://***@h/predict#good"),
            (
                "program:curl 'http://h/x?key=k' -d http://a:b@c",
                "program:curl 'http://h/x?key=***' -d http://***@c",
            ),
            ("a*0.5+b", "a*0.5+b"),
            ("日://", "日://"),
        ] {
            assert_eq!(without_secrets(text), shown, "{text}");
        }
    }
}
