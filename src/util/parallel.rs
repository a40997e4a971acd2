//! Runs two functions at the same time; if no thread can be started, it runs them one after the other.

use std::panic;
use std::thread;

use crate::util::logging;

/// Runs `aside` in a thread named `name` and `here` in this one, and returns both results.
pub fn both<A: Send, B>(name: &str, aside: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    let fields = logging::fields();
    let for_run = || {
        let _scope = logging::scope(|own| *own = fields.clone());
        aside()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, for_run);
        let of_here = here();
        let of_aside = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
            Err(error) => {
                log::debug!("no thread can be started for `{name}`: {error}");
                aside()
            }
        };
        (of_aside, of_here)
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn each_of_the_two_functions_runs_once() {
        let mut here = 0;
        let (name, ()) = both("aside", || thread::current().name().map(str::to_owned), || here += 1);
        assert_eq!(here, 1);
        if cfg!(target_family = "wasm") {
            assert_ne!(name.as_deref(), Some("aside"));
        } else {
            assert_eq!(name.as_deref(), Some("aside"));
        }
    }
}
