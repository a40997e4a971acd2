//! The command `check`.

use log::LevelFilter;

use super::args::Check;
use super::{own_program, print, start};
use crate::backup::paths;
use crate::backup::preflight::{self, Mode};
use crate::config::Environment;
use crate::model::Code;
use crate::service::history::History;

pub(super) fn check(options: &Check, environment: &Environment) -> u8 {
    let (findings, ended) = match preflight::settings(&options.settings(), environment) {
        Ok(config) => {
            let cancel = start(&config, environment, LevelFilter::Error);
            let history = History::new(&paths::root(&config));
            let last_token_user = |workspace: &str, destination: &str| history.token_user(workspace, destination);
            let findings = preflight::run(&config, &own_program(), &cancel, Mode::Whole, &last_token_user);
            (findings, cancel.is_cancelled())
        }
        Err(faults) => (faults, false),
    };
    if options.json {
        print(&preflight::to_json(&findings));
    } else {
        findings.iter().for_each(|finding| print(&finding.to_line()));
    }
    if ended { Code::ShuttingDown.exit_code() } else { preflight::exit_code(&findings) }
}
