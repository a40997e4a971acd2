//! Threads that serve one connection after another: to start a thread costs more than to answer `/health`.
//! Who is let in is decided elsewhere; here is never more than one thread for each who is.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::seats::Seat;
use super::{STACK_BYTES, serve};

/// How long a thread stays without work. Long enough for a caller who asks again and again, short enough that a crowd
/// leaves no memory behind.
const IDLE_TIME_MAX: Duration = Duration::from_secs(1);

/// The threads of one listener.
#[derive(Default)]
pub(super) struct Crew {
    state: Mutex<State>,
    has_work: Condvar,
}

#[derive(Default)]
struct State {
    /// Handed over, not yet taken up; never more than threads are idle, so none waits for another to end.
    handed: VecDeque<Seat>,
    idle: usize,
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connection served by an idle thread, or by a new one. Where there are none (WebAssembly), it is served
    /// before this returns: one connection after another, each by its own deadlines.
    ///
    /// # Errors
    ///
    /// A thread was needed, and the system gives none; the seat is free again.
    pub(super) fn hand(self: &Arc<Self>, seat: Seat) -> io::Result<()> {
        if cfg!(target_family = "wasm") {
            serve(&seat);
            return Ok(());
        }
        let mut state = self.lock();
        if state.handed.len() < state.idle {
            state.handed.push_back(seat);
            drop(state);
            self.has_work.notify_one();
            return Ok(());
        }
        drop(state);
        let crew = Arc::clone(self);
        let thread = thread::Builder::new().name("connection".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || crew.work(seat)).map(drop)
    }

    fn work(&self, first: Seat) {
        let mut next = Some(first);
        while let Some(seat) = next {
            serve(&seat);
            drop(seat);
            next = self.next();
        }
    }

    fn next(&self) -> Option<Seat> {
        let mut state = self.lock();
        state.idle += 1;
        let waited = self.has_work.wait_timeout_while(state, IDLE_TIME_MAX, |state| state.handed.is_empty());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.handed.pop_front()
    }
}
