//! Resolves host names to addresses, within the time of the request. The resolver of `ureq` panics if no thread can be
//! started; this one returns an error.

use std::net::IpAddr;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::net::http_client::Pending;
use crate::util::{CancelToken, Deadline};

/// Asks the system in a thread, because its resolver has its own time limits.
#[derive(Debug)]
pub(super) struct ThreadedResolver;

impl Resolver for ThreadedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse::<IpAddr>().is_ok() {
            // An address needs no resolution. The health check has to work even if no thread can be started.
            return DefaultResolver::default().resolve(uri, config, NextTimeout::default());
        }
        let (uri, config) = (uri.clone(), config.clone());
        // Without a timeout, ureq resolves the name in the calling thread.
        let found = Pending::start(move || DefaultResolver::default().resolve(&uri, &config, NextTimeout::default()))?;
        let deadline = Deadline::after(*timeout.after, &CancelToken::default());
        found.wait(&deadline).map_err(|_| Error::Timeout(timeout.reason))?
    }
}
