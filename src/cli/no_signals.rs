//! Replaces `signals` on a system without signals: nothing ends a command early.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::http::server::Stop;
use crate::service::Service;
use crate::util::CancelToken;

pub(super) fn stop_service(_: &Stop, _: &Arc<Service>, _: &Arc<OnceLock<u8>>) {}

pub(super) fn cancel_after_grace(_: Duration, _: &Arc<OnceLock<u8>>) -> CancelToken {
    CancelToken::default()
}
