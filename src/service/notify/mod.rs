//! Notifications about runs: what a message says (`message`), and how it is sent (`sender`). `recorder` uses it when
//! a run has ended.

pub mod message;
pub mod sender;
