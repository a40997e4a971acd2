//! The connection limits: which connections are open, which of them wait for a run, and which one is closed to make
//! room.

use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Handler;
use super::connection::Connection;
use crate::http::sockets;
use crate::model::result_code::Code;

/// All limits of the listener. The limits on the bytes of a request are in [`crate::http::request`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections may be open, each with a thread and a descriptor. Even if all clients are slow, the process
    /// stays under 8 MB, apart from what `bytes_max` permits.
    pub connections_max: usize,
    /// How many of these one peer address may have: a third, so that most of them are left for the others.
    pub connections_per_peer_max: usize,
    /// How many callers may wait for a run: enough for 50 at once, while most connections remain for `/health`.
    pub callers_max: usize,
    /// How many connections are reserved for peer addresses without a connection, and how many callers beyond
    /// `callers_max` for peer addresses without a waiting caller.
    pub reserved: usize,
    /// The total size of the bodies that are being read or sent, beside the newest one. They take milliseconds, and
    /// most requests have none. `/status` may have some hundreds of kilobytes, and rarely megabytes; 384 requests of the
    /// largest size would take 24 MB.
    pub bytes_max: usize,
    /// The time from the connection to the end of the head, from there to the end of the body, and for the whole answer.
    /// The last one includes the wait for a client that still sends to close its side, so that no reset overtakes the
    /// answer.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 384,
            connections_per_peer_max: 128,
            callers_max: 64,
            reserved: 8,
            bytes_max: 2 * 1024 * 1024,
            timeout: Duration::from_secs(5),
        }
    }
}

/// How long a new connection waits for another one to close. Closing takes microseconds of work, but longer on a busy
/// machine. No other connection is accepted meanwhile.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(500);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head is being read.
    Head,
    /// A body of this many bytes is being read.
    Body(usize),
    /// The answer is being made.
    Answering,
    /// The answer waits for a run.
    Waiting,
    /// An answer with a body of this many bytes is being sent, or none of them is left and the server waits for the
    /// client to close.
    Sending(usize),
}

impl Phase {
    /// Whether it waits for its client, and so can be closed to make room.
    fn waits_for_client(self) -> bool {
        matches!(self, Self::Head | Self::Body(_) | Self::Sending(_))
    }
}

struct Slot {
    connection: Arc<Connection>,
    phase: Phase,
    since: Instant,
    /// Why it has to close.
    closing: Option<Code>,
}

impl Slot {
    fn peer(&self) -> IpAddr {
        self.connection.peer.ip()
    }

    /// Makes the connection close. Its thread sees the end of its input at once, and then reads the reason.
    fn close(&mut self, code: Code) {
        self.closing = Some(code);
        let side = if matches!(self.phase, Phase::Sending(_)) { Shutdown::Both } else { Shutdown::Read };
        // This fails if the peer is already gone.
        let _ = self.connection.stream.shutdown(side);
    }
}

/// All open connections, and what answers their requests.
pub(super) struct Slots {
    list: Mutex<Vec<Slot>>,
    changed: Condvar,
    pub(super) limits: Limits,
    pub(super) handler: Arc<dyn Handler>,
}

impl Slots {
    pub(super) fn new(limits: Limits, handler: Arc<dyn Handler>) -> Self {
        Self { list: Mutex::default(), changed: Condvar::new(), limits, handler }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // No change of the list panics halfway.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection a slot. Another connection may have to close for it. Returns `None` if none can close in
    /// time.
    pub(super) fn open(self: &Arc<Self>, connection: &Arc<Connection>) -> Option<OpenSlot> {
        let deadline = Instant::now() + CLOSE_TIME_MAX;
        let (peer, limits) = (connection.peer.ip(), self.limits);
        let mut list = self.lock();
        loop {
            let own = list.iter().filter(|slot| slot.peer() == peer).count();
            let reserved = if own == 0 { 0 } else { limits.reserved };
            let is_peer_full = own >= limits.connections_per_peer_max;
            if !is_peer_full && list.len() + reserved < limits.connections_max {
                break;
            }
            let may_close = |slot: &Slot| !is_peer_full || slot.peer() == peer;
            let is_closing = list.iter().any(|slot| slot.closing.is_some() && may_close(slot));
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !is_closing && !close_longest_waiting(&mut list, may_close) {
                return None;
            }
            list = self.changed.wait_timeout(list, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (connection, phase, since) = (Arc::clone(connection), Phase::Head, Instant::now());
        list.push(Slot { connection: Arc::clone(&connection), phase, since, closing: None });
        Some(OpenSlot { slots: Arc::clone(self), connection })
    }

    /// Closes the connections that have not sent their whole request: they are too late.
    pub(super) fn close_unfinished(&self) {
        for slot in self.lock().iter_mut().filter(|slot| matches!(slot.phase, Phase::Head | Phase::Body(_))) {
            slot.close(Code::ShuttingDown);
        }
    }

    /// Waits until no connection is open, at most `timeout`. Returns how many are left.
    pub(super) fn wait_until_empty(&self, timeout: Duration) -> usize {
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, |list| !list.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.len()
    }
}

/// Closes the connection of these that has waited for its client the longest. Returns whether there is one.
fn close_longest_waiting(list: &mut [Slot], is_one: impl Fn(&Slot) -> bool) -> bool {
    let waiting = list.iter_mut().filter(|slot| slot.closing.is_none() && slot.phase.waits_for_client());
    let longest = waiting.filter(|slot| is_one(slot)).min_by_key(|slot| slot.since);
    longest.map(|slot| slot.close(Code::TooManyRequests)).is_some()
}

/// The slot of one connection. Dropping this frees the slot.
pub(super) struct OpenSlot {
    pub(super) slots: Arc<Slots>,
    pub(super) connection: Arc<Connection>,
}

impl OpenSlot {
    fn is_own(&self, slot: &Slot) -> bool {
        Arc::ptr_eq(&slot.connection, &self.connection)
    }

    /// Closes another connection that waits for its client, because the system has no thread for this one.
    pub(super) fn close_another(&self) {
        let mut list = self.slots.lock();
        close_longest_waiting(&mut list, |slot| !self.is_own(slot));
    }

    /// Enters the next phase.
    ///
    /// # Errors
    ///
    /// The reason why the connection has to close instead.
    pub(super) fn enter(&self, phase: Phase) -> Result<(), Code> {
        let mut list = self.slots.lock();
        let Some(own) = list.iter_mut().find(|slot| self.is_own(slot)) else { return Ok(()) };
        if let Some(code) = own.closing {
            return Err(code);
        }
        // A client that has its answer and does not close counts from the beginning of the answer.
        if !matches!((own.phase, phase), (Phase::Sending(_), Phase::Sending(0))) {
            own.since = Instant::now();
        }
        own.phase = phase;
        self.keep_small(&mut list);
        Ok(())
    }

    /// Returns an error with the reason if the connection has to close.
    pub(super) fn check(&self) -> Result<(), Code> {
        let list = self.slots.lock();
        list.iter().find(|slot| self.is_own(slot)).and_then(|own| own.closing).map_or(Ok(()), Err)
    }

    /// Counts this connection among the callers that wait. If the limit is reached, it takes the place of a caller
    /// whose client has ended its side, because that client is most likely gone.
    ///
    /// # Errors
    ///
    /// [`Code::TooManyRequests`] if there is no such caller.
    pub(super) fn begin_wait(&self) -> Result<(), Code> {
        let (mut list, limits) = (self.slots.lock(), self.slots.limits);
        let callers: Vec<_> = list.iter().filter(|slot| slot.phase == Phase::Waiting).map(Slot::peer).collect();
        let reserved = if callers.contains(&self.connection.peer.ip()) { 0 } else { limits.reserved };
        if callers.len() >= limits.callers_max + reserved {
            let mut waiting = list.iter_mut().filter(|slot| slot.phase == Phase::Waiting);
            let gone = waiting.find(|slot| sockets::has_peer_ended(&slot.connection.stream));
            gone.ok_or(Code::TooManyRequests)?.phase = Phase::Answering;
        }
        if let Some(own) = list.iter_mut().find(|slot| self.is_own(slot)) {
            own.phase = Phase::Waiting;
        }
        drop(list);
        sockets::notice_silent_ends(&self.connection.stream);
        Ok(())
    }

    /// Whether the client is gone, or another caller has taken its place.
    pub(super) fn is_client_gone(&self) -> bool {
        let has_place = |slot: &Slot| self.is_own(slot) && slot.phase == Phase::Waiting;
        sockets::has_ended(&self.connection.stream) || !self.slots.lock().iter().any(has_place)
    }

    /// Keeps the bodies of all connections, which are being read or sent, within their limit: closes those that have
    /// taken the longest until the rest fits.
    fn keep_small(&self, list: &mut [Slot]) {
        let size = |slot: &Slot| match slot.phase {
            Phase::Body(bytes) | Phase::Sending(bytes) if slot.closing.is_none() => bytes,
            _ => 0,
        };
        let mut excess = list.iter().map(size).sum::<usize>().saturating_sub(self.slots.limits.bytes_max);
        while excess > 0 {
            let others = list.iter_mut().filter(|slot| size(slot) > 0 && !self.is_own(slot));
            let Some(longest) = others.min_by_key(|slot| slot.since) else { return };
            excess = excess.saturating_sub(size(longest));
            longest.close(Code::TooManyRequests);
        }
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.slots.lock().retain(|slot| !self.is_own(slot));
        self.slots.changed.notify_all();
    }
}
