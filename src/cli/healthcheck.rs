//! The command `healthcheck`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::args::Healthcheck;
use super::{PROGRAM, eprint_line};
use crate::config::{Config, Environment, Options, Required};

/// How long the service may take to answer; a slower one is not healthy.
const HEALTHCHECK_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) fn healthcheck(options: &Healthcheck, environment: &Environment) -> ExitCode {
    let options = Options::new([("--listen", "LISTEN_ADDR", &options.listen)]);
    let config = match Config::new(&options, environment, Required::Serve) {
        Ok(config) => config,
        Err(error) => {
            eprint_line(&format!("{PROGRAM}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // If the service listens on all addresses (0.0.0.0), this asks the machine itself.
    let address = config.listen;
    match ask_health(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint_line(&format!("{PROGRAM}: {address} does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Checks that `/health` at this address answers 200. This does not use an HTTP client, because that would ask a proxy.
fn ask_health(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIME_MAX)?;
    stream.set_read_timeout(Some(HEALTHCHECK_TIME_MAX))?;
    stream.set_write_timeout(Some(HEALTHCHECK_TIME_MAX))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; b"HTTP/1.1 200 ".len()];
    stream.read_exact(&mut status)?;
    if &status == b"HTTP/1.1 200 " { Ok(()) } else { Err(std::io::Error::other("unhealthy")) }
}
