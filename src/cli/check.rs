//! The command `check`.

use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;

use super::args::Check;
use super::{own_program, print, start};
use crate::backup::paths;
use crate::backup::preflight::{self, Mode};
use crate::config::Environment;
use crate::model::result_code::Code;
use crate::service::history::History;

pub(super) fn check(options: &Check, environment: &Environment) -> u8 {
    let mut ended = false;
    let findings = preflight::settings(&options.settings(), environment).map_or_else(
        |faults| faults,
        |config| {
            let cancel = start(&config, environment, LevelFilter::Error, Duration::ZERO, &Arc::default());
            let history = History::new(&paths::root(&config));
            let last_token_user = |workspace: &str, destination: &str| history.token_user(workspace, destination);
            let findings = preflight::run(&config, &own_program(), &cancel, Mode::Whole, &last_token_user);
            ended = cancel.is_cancelled();
            findings
        },
    );
    if options.json {
        print(&preflight::to_json(&findings));
    } else {
        findings.iter().for_each(|finding| print(&finding.to_line()));
    }
    if ended { Code::ShuttingDown.exit_code() } else { preflight::exit_code(&findings) }
}
