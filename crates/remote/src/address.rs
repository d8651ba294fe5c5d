//! Addresses of servers.

use reqwest::Url;

/// Parses an `http://` or `https://` address. The scheme may be in upper case.
///
/// # Errors
/// What is wrong with it. The message does not contain the address.
pub(crate) fn parse(address: &str) -> Result<Url, String> {
    let url = Url::parse(address).map_err(|e| e.to_string())?;
    match ["http", "https"].contains(&url.scheme()) && url.host_str().is_some() {
        true => Ok(url),
        false => Err("give an address that begins with http:// or https://".to_owned()),
    }
}

/// Whether a text begins like an HTTP address.
pub(crate) fn is_http(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// An address as messages show it: `http://***@host` instead of `http://user:password@host`.
pub(crate) fn redacted(address: &str) -> String {
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
        ] {
            assert_eq!(redacted(address), shown, "{address}");
        }
    }
}
