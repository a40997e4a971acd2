//! The HTTP client for requests that this service makes itself, with TLS, the CA bundle and proxies. `config`,
//! `git`, `windmill`, `backup` and `service` use it; it uses `util` alone.

pub mod ca_bundle;
pub mod http_client;
pub mod proxy;
mod resolver;
#[cfg(not(target_family = "wasm"))]
mod tls;
