//! The command `check`.

use std::process::ExitCode;

use log::LevelFilter;

use super::args::Check;
use super::{own_program, print, signals};
use crate::backup::paths;
use crate::backup::preflight::{self, Mode};
use crate::config::Environment;
use crate::model::result_code::Code;
use crate::service::history::History;
use crate::util::deadline::CancelToken;
use crate::util::logging;

pub(super) fn check(options: &Check, environment: &Environment) -> ExitCode {
    let cancel = CancelToken::default();
    let findings = preflight::settings(&options.settings(), environment).map_or_else(
        |faults| faults,
        |config| {
            // The findings are the result, so lower log levels than errors are shown only if LOG_LEVEL is set.
            let level = if environment.get("LOG_LEVEL").is_none() { LevelFilter::Error } else { config.log_level };
            logging::start(level, config.log_format);
            signals::cancel_on_signal(&cancel);
            let history = History::new(&paths::root(&config));
            let last_token_user = |workspace: &str, destination: &str| history.token_user(workspace, destination);
            preflight::run(&config, &own_program(), &cancel, Mode::Whole, &last_token_user)
        },
    );
    if options.json {
        print(&preflight::to_json(&findings));
    } else {
        findings.iter().for_each(|finding| print(&finding.to_line()));
    }
    let ended = cancel.is_cancelled().then(|| Code::ShuttingDown.exit_code());
    ExitCode::from(ended.unwrap_or_else(|| preflight::exit_code(&findings)))
}
