//! Notifications about runs: what a message says (`message`), and how it is sent (`sender`). `recorder` uses it after a
//! run.

pub mod message;
pub mod sender;

pub use message::{Notice, Subject, commit_page};
pub use sender::Sender;
