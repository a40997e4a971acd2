//! What a running service adds to single runs: queue, worker, scheduler, history, metrics, status and notifications.
//! `api` and `cli` use it; it starts runs through `backup` and knows neither git nor Windmill.

pub mod history;
pub mod metrics;
pub mod notify;
pub mod overdue;
pub mod queue;
pub mod recorder;
pub mod scheduler;
pub mod status;
pub mod token_check;
pub mod worker;
