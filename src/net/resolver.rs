//! Resolves host names to addresses, within the time of the request. The resolver of `ureq` panics if no thread can be
//! started; this one returns an error.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::vec::IntoIter;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The largest number of addresses that `ureq` accepts.
const ADDRESSES_MAX: usize = 16;
/// The stack of the resolver thread. The system's resolver stores its answers there, and little else.
const STACK_BYTES: usize = 256 * 1024;

/// Asks the system in a thread, because its resolver has its own time limits.
#[derive(Debug)]
pub(super) struct ThreadedResolver;

impl Resolver for ThreadedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let address = uri.scheme().zip(uri.authority());
        let address = address.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let address = address.ok_or_else(|| Error::BadUri(uri.to_string()))?;
        let found = match address.parse::<SocketAddr>() {
            Ok(address) => vec![address].into_iter(),
            Err(_) => ask_system(address, timeout)?,
        };
        let mut result = self.empty();
        for address in config.ip_family().keep_wanted(found).take(ADDRESSES_MAX) {
            result.push(address);
        }
        if result.is_empty() { Err(Error::HostNotFound) } else { Ok(result) }
    }
}

fn ask_system(address: String, timeout: NextTimeout) -> Result<IntoIter<SocketAddr>, Error> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("resolver".to_owned()).stack_size(STACK_BYTES);
    thread
        .spawn(move || sender.send(address.to_socket_addrs()).ok())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start a thread to look up the host: {error}")))?;
    match receiver.recv_timeout(*timeout.after) {
        Ok(found) => Ok(found?),
        Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
        Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
    }
}
