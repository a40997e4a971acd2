//! What one thread has for another, a few pieces at most: who is faster waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Holds pieces on their way. A full one makes whoever puts wait, an empty one whoever takes.
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    pieces_max: usize,
}

struct State<T> {
    pieces: VecDeque<T>,
    is_closed: bool,
}

impl<T> Mailbox<T> {
    /// For so many pieces at a time.
    #[must_use]
    pub fn new(pieces_max: usize) -> Self {
        let state = State { pieces: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), pieces_max }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody will take the piece.
    pub fn put(&self, piece: T) -> bool {
        let mut state = self.state();
        while state.pieces.len() >= self.pieces_max && !state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.is_closed {
            state.pieces.push_back(piece);
        }
        self.changed.notify_all();
        !state.is_closed
    }

    /// The next piece, if one comes in time; what was put before the end can still be taken.
    pub fn take(&self, time: Duration) -> Option<T> {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        while state.pieces.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.is_closed {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.changed.notify_all();
        state.pieces.pop_front()
    }

    /// Nothing more is put, or taken that was not put yet.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_their_order_and_an_end_ends_every_wait() {
        let (mailbox, patience) = (Mailbox::new(2), Duration::from_secs(10));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!((0..100).all(|piece| mailbox.put(piece)));
                mailbox.close();
            });
            assert!((0..100).all(|piece| mailbox.take(patience) == Some(piece)));
            assert_eq!(mailbox.take(patience), None);
        });
        assert!(!mailbox.put(0), "nobody takes it");
        assert_eq!(Mailbox::<u8>::new(1).take(Duration::ZERO), None);
    }
}
