//! Resolves host names to addresses, within the time of the request. The resolver of `ureq` panics if no thread can be
//! started; this one returns an error.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The stack of the resolver thread. The system's resolver stores its answers there, and little else.
const STACK_BYTES: usize = 256 * 1024;

/// Asks the system in a thread, because its resolver has its own time limits.
#[derive(Debug)]
pub(super) struct ThreadedResolver;

impl Resolver for ThreadedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let (uri, config) = (uri.clone(), config.clone());
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("resolver".to_owned()).stack_size(STACK_BYTES);
        // Without a timeout, ureq asks in the thread that it is called in.
        let ask = move || sender.send(DefaultResolver::default().resolve(&uri, &config, NextTimeout::default())).ok();
        thread.spawn(ask).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start a thread to look up the host: {error}"))
        })?;
        match receiver.recv_timeout(*timeout.after) {
            Ok(found) => found,
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
            Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
        }
    }
}
