//! The integration tests, one binary: real `wmill`, real `git`, real HTTP, and a Windmill that answers as recorded.
//! Each module beside `bed` is a list of facts; `bed` is what they stand on.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start programs and servers, and a panic is how a test fails"
)]

mod adapted;
mod api;
mod authors;
mod bed;
mod bed_works;
mod by_the_clock;
mod check;
mod credentials;
mod curl;
mod docs;
mod failures;
mod faults;
mod fuzzed;
mod guards;
mod hostile;
#[cfg(feature = "docker-tests")]
mod image;
mod inside;
mod leaks;
mod listener;
mod man;
mod notices;
mod openapi;
#[allow(unreachable_pub, reason = "the fuzz targets use it from another crate")]
mod properties;
mod proxies;
mod raw_bytes;
mod release;
mod restore;
mod seen;
mod several;
mod shortcut;
mod side;
mod signing;
mod story;
mod trust;
mod unheard;
mod verify;
