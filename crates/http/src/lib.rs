/*!
How Stackelberg's HTTP clients are set up. Every client of the workspace comes from [`builder`], so that all of
them identify themselves, verify certificates, use proxies and give up in the same way.

- TLS is rustls with the cryptography of ring; certificates are verified by the operating system's verifier,
  or against its root certificates on Linux.
- Proxies are those that the environment or the system names, but never for an address on this machine.
- Redirects are not followed unless the caller sets a policy: a client that sends a secret decides itself where
  the secret may go.

```
use std::time::Duration;

let server = "http://127.0.0.1:8000/v1";
let client = stackelberg_http::builder(server, Duration::from_secs(60))?.build()?;
assert!(client.get(format!("{server}/models")).build()?.headers().is_empty());
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod redaction;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::ClientBuilder;
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;

pub use redaction::{addresses, redacted, without_secrets};

/// The longest time that a connection may take to be established.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What a client calls itself to servers.
pub const USER_AGENT: &str = concat!("stackelberg/", env!("CARGO_PKG_VERSION"));

/// TLS cannot be set up, for example because the system has no root certificates.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS: {0}")]
pub struct TlsError(#[from] rustls::Error);

/// A client for the server at `address`, to be built once the caller has added headers of its own.
///
/// `timeout` limits the time until a response begins, and then the time of each read of its body;
/// [`CONNECT_TIMEOUT`] limits the connection, if it is shorter.
///
/// # Errors
/// [`TlsError`].
pub fn builder(address: &str, timeout: Duration) -> Result<ClientBuilder, TlsError> {
    Ok(ClientBuilder::from(async_builder(address, timeout)?).timeout(timeout))
}

/// As [`builder`], for asynchronous callers. `timeout` limits a connection; the caller limits the time of each request.
///
/// # Errors
/// [`TlsError`].
pub fn async_builder(address: &str, timeout: Duration) -> Result<reqwest::ClientBuilder, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    let builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .tls_backend_preconfigured(tls)
        .connect_timeout(timeout.min(CONNECT_TIMEOUT))
        .redirect(Policy::none());
    Ok(if is_loopback(address) { builder.no_proxy() } else { builder })
}

/// The innermost cause of an error, which says what happened; the outer ones repeat the address.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Whether an address is on this machine.
fn is_loopback(address: &str) -> bool {
    let Ok(url) = Url::parse(address) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses() {
        for address in [
            "http://localhost:1/x",
            "http://reward.localhost/score",
            "http://127.0.0.2",
            "https://[::1]:8000/",
        ] {
            assert!(is_loopback(address), "{address}");
        }
        for address in [
            "http://localhost.example",
            "https://10.0.0.1",
            "no address",
            "http://[::2]",
            "http://example.com/localhost",
        ] {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
