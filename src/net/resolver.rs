//! Resolves host names to addresses, within the time of the request. The resolver of `ureq` panics if no thread can be
//! started; this one returns an error.

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::net::http_client::Pending;
use crate::util::deadline::{CancelToken, Deadline};

/// Asks the system in a thread, because its resolver has its own time limits.
#[derive(Debug)]
pub(super) struct ThreadedResolver;

impl Resolver for ThreadedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let (uri, config) = (uri.clone(), config.clone());
        // Without a timeout, ureq asks in the thread that it is called in.
        let found = Pending::start(move |_| DefaultResolver::default().resolve(&uri, &config, NextTimeout::default()))?;
        let deadline = Deadline::after(*timeout.after, &CancelToken::default());
        found.wait(&deadline).map_err(|_| Error::Timeout(timeout.reason))?
    }
}
