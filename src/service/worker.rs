//! The worker of the queue: executes the runs with the settings of this process.

use std::sync::Mutex;

use crate::backup::progress::Event;
use crate::backup::run_context::Env;
use crate::backup::sync;
use crate::backup::verify;
use crate::model::result_code::Code;
use crate::model::run_result::SyncResult;
use crate::process::run;
use crate::request::Purpose;
use crate::service::Service;
use crate::service::queue::Run;
use crate::util::logging;

/// Why no sync can be made on this platform; `None` if syncs can be made.
pub const NO_SYNCS: Option<&str> = if run::CAN_START {
    None
} else {
    Some("this is WebAssembly, where neither wmill nor git can be started, so no backups are made")
};

impl Service {
    /// Executes the run, and returns its result. It may take minutes, and may panic.
    pub fn work(&self, run: &Run) -> SyncResult {
        let progress = |event| {
            match event {
                Event::Started(step) => run.enter(step.as_str()),
                Event::Waits => run.wait_for_others(),
                Event::Ended(step, time) if run.request.purpose == Purpose::Sync && !run.request.dry_run => {
                    self.recorder.metrics.count_step(step.as_str(), time);
                }
                Event::Ended(..) => {}
            }
            log_step(event);
        };
        let env = Env {
            config: &self.config,
            own_program: &self.own_program,
            cancel: &self.cancel,
            progress: &progress,
            last_token_user: &|workspace, destination| self.recorder.history.token_user(workspace, destination),
            notes: Mutex::default(),
        };
        match run.request.purpose {
            Purpose::Sync => sync::run(&run.request, &env, &run.id),
            Purpose::Verify => verify::run(&run.request, &env, &run.id),
            Purpose::Restore => run.failure(Code::Internal, "a service makes no restores".to_owned()),
        }
    }
}

/// Writes a step to the log.
pub fn log_step(event: Event) {
    match event {
        Event::Started(step) => log::debug!("step {} begins", step.as_str()),
        Event::Waits => log::info!("waiting for another process that works on this workspace"),
        Event::Ended(step, time) => {
            let duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let _scope = logging::scope(|fields| {
                fields.step = Some(step.as_str());
                fields.duration_ms = Some(duration_ms);
            });
            log::debug!("step {} took {duration_ms} ms", step.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::{Config, Environment, Options, Required};
    use crate::service::queue::Queue;
    use crate::service::recorder::Recorder;
    use crate::util::deadline::CancelToken;

    impl Service {
        /// Returns a service without settings, whose history is in memory only.
        pub(in crate::service) fn for_test() -> Self {
            let environment = Environment::new([("DATA_DIR".into(), "/nowhere".into())]);
            let config = Config::new(&Options::default(), &environment, Required::Serve).expect("settings");
            let recorder = Recorder::new(&config);
            let (own_program, cancel) = ("".into(), CancelToken::default());
            Self { config, own_program, queue: Queue::default(), recorder, cancel, started: Instant::now() }
        }
    }
}
