//! The command `healthcheck`.

use std::time::Duration;

use ureq::http::HeaderMap;

use super::args::Healthcheck;
use super::{PROGRAM, eprint_line, service_config};
use crate::config::{Environment, Options};
use crate::net::http_client;

/// A service that takes longer to answer is unhealthy.
const HEALTHCHECK_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) fn healthcheck(options: &Healthcheck, environment: &Environment) -> u8 {
    let options = Options::new([("--listen", "LISTEN_ADDR", &options.listen)]);
    let Some(config) = service_config(&options, environment) else { return 1 };
    // If the service listens on all addresses (0.0.0.0), this sends the request to the machine itself, without a proxy.
    let url = format!("http://{}/health", config.listen);
    let answer = http_client::client(&url, HEALTHCHECK_TIME_MAX, HeaderMap::new(), &[])
        .get(&url)
        .header("Host", "localhost")
        .call();
    let why = match answer {
        Ok(answer) if answer.status() == 200 => return 0,
        Ok(answer) => format!("unhealthy ({})", answer.status()),
        Err(error) => error.to_string(),
    };
    eprint_line(&format!("{PROGRAM}: {} does not answer: {why}", config.listen));
    1
}
