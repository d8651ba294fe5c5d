//! The crate from outside. Packages come from PyPI; the hub is a small server in this process.

mod hub;
mod hub_server;
mod resolve;
