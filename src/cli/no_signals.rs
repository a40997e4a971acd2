//! Replaces `signals` on a system without signals: nothing ends a command early.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::config::Config;
use crate::http::server::Stop;
use crate::service::queue::Queue;
use crate::util::deadline::CancelToken;

pub(super) fn stop_service(_: &Stop, _: &Arc<Queue>, _: &CancelToken, _: &Arc<OnceLock<u8>>, _: &Arc<Config>) {}

pub(super) fn cancel_on_signal(_: &CancelToken) {}

pub(super) fn cancel_after_grace(_: &CancelToken, _: Duration, _: &Arc<OnceLock<u8>>) {}
