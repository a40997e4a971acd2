//! Who is in, at what, and who leaves when there is no room. It shuts sockets down, and never reads or writes them.

use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::{LEAVING_MAX, Limits, Shared, wake};
use crate::code::Code;

/// What a connection is at, in the order in which it has to give way: the first the soonest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The answer is sent; the peer has not closed.
    Lingering,
    /// The head is being read.
    Head,
    /// A body of that many bytes is being read.
    Body(usize),
    /// An answer is being sent that took no time to make.
    Writing,
    /// What has come has not been looked at yet. From here on nobody gives way.
    Arrived,
    /// A light answer is being made.
    Light,
    /// A heavy answer is being made or sent. Only for another such, and only where its caller has ended its side.
    Heavy,
}

struct Taken {
    connection: Arc<Connection>,
    phase: Phase,
    /// Why it has to leave.
    dismissed: Option<Code>,
}

impl Taken {
    /// The connection's thread sees the end of its input at once, and asks why.
    fn dismiss(&mut self, code: Code) {
        self.dismissed = Some(code);
        let side = if self.phase == Phase::Writing { Shutdown::Both } else { Shutdown::Read };
        // It fails where the peer is gone already.
        let _ = self.connection.stream.shutdown(side);
    }
}

/// All seats.
pub(super) struct Seats {
    /// In the order of their coming.
    taken: Mutex<Vec<Taken>>,
    changed: Condvar,
    limits: Limits,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            taken: Mutex::new(Vec::with_capacity(limits.connections_max + LEAVING_MAX)),
            changed: Condvar::new(),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Taken>> {
        // Nothing panics half way through a change of the list.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, whose [`Seat`] the caller then makes. Where there is none, one who is slow leaves first.
    pub(super) fn take(&self, connection: &Arc<Connection>) -> bool {
        let deadline = Instant::now() + self.limits.room_timeout;
        let mut taken = self.lock();
        while !self.has_room_for_one_more(&mut taken) {
            let left = deadline.saturating_duration_since(Instant::now());
            // Those that have arrived are looked at in a moment, and those that are dismissed leave.
            let will_change = taken.iter().any(|one| one.phase == Phase::Arrived || one.dismissed.is_some());
            if left.is_zero() || !will_change {
                return false;
            }
            taken = self.changed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.push(Taken { connection: Arc::clone(connection), phase: Phase::Arrived, dismissed: None });
        true
    }

    /// Whether there is room, or somebody was dismissed to make it. On a busy machine those take their time to leave; as
    /// long as they are few, nobody waits for them.
    fn has_room_for_one_more(&self, taken: &mut [Taken]) -> bool {
        if taken.len() >= self.limits.connections_max + LEAVING_MAX {
            return false;
        }
        if taken.iter().filter(|one| one.dismissed.is_none()).count() < self.limits.connections_max {
            return true;
        }
        let Some(slowest) = one_to_leave(taken) else { return false };
        taken[slowest].dismiss(Code::TooManyRequests);
        true
    }

    /// Those that have not sent their whole request have come too late.
    pub(super) fn dismiss_unfinished(&self) {
        let is_unfinished = |one: &&mut Taken| matches!(one.phase, Phase::Head | Phase::Body(_) | Phase::Arrived);
        for one in self.lock().iter_mut().filter(is_unfinished) {
            one.dismiss(Code::ShuttingDown);
        }
    }

    /// How many are left, after `timeout` at most.
    pub(super) fn wait_until_empty(&self, timeout: Duration) -> usize {
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, |taken| !taken.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.len()
    }
}

/// One seat, given back when dropped.
pub(super) struct Seat {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Arc<Connection>,
}

impl Seat {
    /// Goes on to the next phase.
    ///
    /// # Errors
    ///
    /// Why it has to leave instead: it was dismissed, or as many heavy requests as may are being answered.
    pub(super) fn enter(&self, phase: Phase) -> Result<(), Code> {
        let seats = &self.shared.seats;
        let mut taken = seats.lock();
        let Some(own) = taken.iter().position(|one| Arc::ptr_eq(&one.connection, &self.connection)) else {
            return Ok(());
        };
        if let Some(code) = taken[own].dismissed {
            return Err(code);
        }
        let has_dismissed = phase == Phase::Heavy && make_room_for_heavy(&mut taken, seats.limits.heavy_max)?;
        // The answer of a heavy request was long in the making, and does not give way while it is sent.
        if !(taken[own].phase == Phase::Heavy && phase == Phase::Writing) {
            if taken[own].phase == Phase::Arrived {
                seats.changed.notify_all();
            }
            taken[own].phase = phase;
        }
        if let Phase::Body(_) = phase {
            self.keep_bodies_small(&mut taken);
        }
        drop(taken);
        if has_dismissed {
            // Without the lock, since whoever looks again takes it.
            self.shared.handler.look_again();
        }
        Ok(())
    }

    /// Whether it has to leave.
    pub(super) fn check(&self) -> Result<(), Code> {
        let taken = self.shared.seats.lock();
        let own = taken.iter().find(|one| Arc::ptr_eq(&one.connection, &self.connection));
        own.and_then(|own| own.dismissed).map_or(Ok(()), Err)
    }

    /// The bodies that are being read fit into their limit: the oldest others leave until they do.
    fn keep_bodies_small(&self, taken: &mut [Taken]) {
        let size = |one: &Taken| match one.phase {
            Phase::Body(bytes) if one.dismissed.is_none() => bytes,
            _ => 0,
        };
        let mut excess =
            taken.iter().map(size).sum::<usize>().saturating_sub(self.shared.seats.limits.bodies_bytes_max);
        for one in taken.iter_mut().filter(|one| !Arc::ptr_eq(&one.connection, &self.connection)) {
            let bytes = size(one);
            if excess > 0 && bytes > 0 {
                one.dismiss(Code::TooManyRequests);
                excess = excess.saturating_sub(bytes);
            }
        }
    }
}

/// Who leaves for a newcomer: of those who come from the address with the most of them, so that one neighbour's crowd
/// does not push the others out, the first in the order of phases, and of equals the oldest. Nobody, where all of that
/// crowd have just arrived: they are looked at in a moment.
fn one_to_leave(taken: &[Taken]) -> Option<usize> {
    let is_early = |one: &&Taken| one.dismissed.is_none() && one.phase <= Phase::Arrived;
    let address = |one: &Taken| one.connection.peer.ip();
    let crowd = |of: &Taken| taken.iter().filter(is_early).filter(|one| address(one) == address(of)).count();
    let largest = taken.iter().filter(is_early).map(crowd).max()?;
    let gives_way = |one: &Taken| one.dismissed.is_none() && one.phase < Phase::Arrived && crowd(one) == largest;
    let candidates = taken.iter().enumerate().filter(|(_, one)| gives_way(one));
    candidates.min_by_key(|(_, one)| one.phase).map(|(at, _)| at)
}

/// Where as many heavy requests as may are being answered, one whose caller has ended its side leaves; whether one did.
/// Such a caller is most likely gone. Where it waits all the same, it gets its answer as long as nobody needs the seat.
fn make_room_for_heavy(taken: &mut [Taken], heavy_max: usize) -> Result<bool, Code> {
    let mut heavy: Vec<_> =
        taken.iter_mut().filter(|one| one.phase == Phase::Heavy && one.dismissed.is_none()).collect();
    if heavy.len() < heavy_max {
        return Ok(false);
    }
    let ended = wake::first_ended(heavy.iter().map(|one| &one.connection.stream)).ok_or(Code::TooManyRequests)?;
    heavy[ended].dismiss(Code::TooManyRequests);
    Ok(true)
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.shared.seats.lock();
        taken.retain(|one| !Arc::ptr_eq(&one.connection, &self.connection));
        drop(taken);
        self.shared.seats.changed.notify_all();
    }
}
