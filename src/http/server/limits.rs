//! The connection limits: which connections are open, which of them wait for a run, and which one is closed to make
//! room.

use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Handler;
use super::connection::Connection;
use crate::http::sockets;
use crate::model::Code;
use crate::util::{lock, wait_while};

/// All limits of the listener. The limits on the bytes of a request are in [`crate::http::request`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most open connections. Each has a thread and a descriptor. Even if all clients are slow, the process stays
    /// under 8 MB, apart from what `bytes_max` permits.
    pub connections_max: usize,
    /// The most connections of one peer address: a third, so that most of them are left for others.
    pub connections_per_peer_max: usize,
    /// The most callers that wait for a run: enough for 50 at once, while most connections remain for `/health`.
    pub callers_max: usize,
    /// This many connections are reserved for peer addresses without a connection. This many callers beyond
    /// `callers_max` are reserved for peer addresses without a waiting caller.
    pub reserved: usize,
    /// The total size of the bodies that are being read or sent, except the newest one. A transfer takes milliseconds,
    /// and most requests have no body. `/status` may have some hundreds of kilobytes, and rarely megabytes; 384
    /// requests of the largest size would take 24 MB.
    pub bytes_max: usize,
    /// The time from the connection to the end of the head, from there to the end of the body, and for the whole
    /// answer. The last one includes the wait for a client that still sends to close its side, so that no reset
    /// overtakes the answer.
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

/// The most connections that were closed to make room and whose threads have not ended yet. Without this limit, a flood
/// of connections starts threads faster than they end.
pub(super) const CLOSING_MAX: usize = 32;
/// The longest wait of a new connection for the end of such a thread above the limit. No other connection is accepted
/// meanwhile.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(500);

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head is being read.
    Head,
    /// The body is being read.
    Body,
    /// The answer is being made.
    Answering,
    /// The answer waits for a run.
    Waiting,
    /// The answer is being sent, or the server waits for the client to close.
    Sending,
}

struct Slot {
    connection: Arc<Connection>,
    phase: Phase,
    /// The size of the body that is being read or sent.
    bytes: usize,
    since: Instant,
}

impl Slot {
    fn peer(&self) -> IpAddr {
        self.connection.peer.ip()
    }

    /// Makes the connection close: its thread reads the end of the input at once, and then finds that the slot is gone.
    fn close(self) {
        let side = if self.phase == Phase::Sending { Shutdown::Both } else { Shutdown::Read };
        // This fails if the peer is already gone.
        let _ = self.connection.stream.shutdown(side);
    }
}

/// All open connections, and what answers their requests.
pub(super) struct Slots {
    /// A connection that has to close is no longer in the list.
    list: Mutex<Vec<Slot>>,
    is_stopped: AtomicBool,
    pub(super) limits: Limits,
    pub(super) handler: Arc<dyn Handler>,
}

impl Slots {
    pub(super) fn new(limits: Limits, handler: Arc<dyn Handler>) -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), is_stopped: AtomicBool::default(), limits, handler })
    }

    /// Gives the connection a slot, for which another connection may have to close. Returns `None` if none can close
    /// in time.
    pub(super) fn open(self: &Arc<Self>, connection: Arc<Connection>) -> Option<Caller> {
        let (peer, limits) = (connection.peer.ip(), self.limits);
        let mut list = lock(&self.list);
        let of_peer = list.iter().filter(|slot| slot.peer() == peer).count();
        let reserved = if of_peer == 0 { 0 } else { limits.reserved };
        let is_peer_full = of_peer >= limits.connections_per_peer_max;
        let is_full = is_peer_full || list.len() + reserved >= limits.connections_max;
        if is_full && !close_longest_waiting(&mut list, |slot| !is_peer_full || slot.peer() == peer) {
            return None;
        }
        list.push(Slot { connection: Arc::clone(&connection), phase: Phase::Head, bytes: 0, since: Instant::now() });
        drop(list);
        let caller = Caller { connection, limits, slots: Arc::clone(self) };
        // Each connection has a reference, and the accepting thread.
        let are_too_many = || Arc::strong_count(self) > limits.connections_max + CLOSING_MAX + 1;
        wait_while(CLOSE_TIME_MAX, are_too_many);
        (!are_too_many()).then_some(caller)
    }

    /// Closes the connections that have not sent their whole request. The server is stopping, so they are too late.
    pub(super) fn close_unfinished(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        let is_unfinished = |slot: &mut Slot| matches!(slot.phase, Phase::Head | Phase::Body);
        lock(&self.list).extract_if(.., is_unfinished).for_each(Slot::close);
    }
}

/// Closes the selected connection that has waited for its client the longest. Returns whether there is one.
fn close_longest_waiting(list: &mut Vec<Slot>, is_selected: impl Fn(&Slot) -> bool) -> bool {
    let waits_for_client = |slot: &Slot| matches!(slot.phase, Phase::Head | Phase::Body | Phase::Sending);
    let waiting = list.iter().enumerate().filter(|(_, slot)| waits_for_client(slot) && is_selected(slot));
    let longest = waiting.min_by_key(|(_, slot)| slot.since).map(|(index, _)| index);
    longest.map(|index| list.swap_remove(index).close()).is_some()
}

/// The client of a connection, which has a slot. Dropping this frees the slot.
pub struct Caller {
    pub(super) connection: Arc<Connection>,
    pub(super) limits: Limits,
    /// The last field, so that the socket is closed when this is dropped: `Draining` counts the references.
    pub(super) slots: Arc<Slots>,
}

impl Caller {
    fn is_own(&self, slot: &Slot) -> bool {
        Arc::ptr_eq(&slot.connection, &self.connection)
    }

    /// Returns the slot in the list, or the reason why the connection has to close.
    fn find_slot<'a>(&self, list: &'a mut [Slot]) -> Result<&'a mut Slot, Code> {
        let is_stopped = self.slots.is_stopped.load(Ordering::SeqCst);
        let reason = if is_stopped { Code::ShuttingDown } else { Code::TooManyRequests };
        list.iter_mut().find(|slot| self.is_own(slot)).ok_or(reason)
    }

    /// Enters the next phase, in which a body of this many bytes is read or sent. If the bodies that are being read or
    /// sent exceed their total limit, closes the connections that have taken the longest until the rest fits.
    ///
    /// # Errors
    ///
    /// The reason why the connection has to close instead.
    pub(super) fn enter(&self, phase: Phase, bytes: usize) -> Result<(), Code> {
        let mut list = lock(&self.slots.list);
        let slot = self.find_slot(&mut list)?;
        (slot.phase, slot.bytes, slot.since) = (phase, bytes, Instant::now());
        let is_other = |slot: &Slot| slot.bytes > 0 && !self.is_own(slot);
        while list.iter().map(|slot| slot.bytes).sum::<usize>() > self.slots.limits.bytes_max
            && close_longest_waiting(&mut list, is_other)
        {}
        Ok(())
    }

    /// Returns an error with the reason if the connection has to close.
    pub(super) fn check(&self) -> Result<(), Code> {
        self.find_slot(&mut lock(&self.slots.list)).map(|_| ())
    }

    /// Counts this connection among the callers that wait. Has to be called before the answer waits for longer than a
    /// moment. If the limit is reached, it replaces a caller whose client has closed its side, because that client has
    /// most likely gone.
    ///
    /// # Errors
    ///
    /// [`Code::TooManyRequests`] if there is no such caller, or no thread to wait in.
    pub fn begin_wait(&self) -> Result<(), Code> {
        let (mut list, limits) = (lock(&self.slots.list), self.limits);
        if limits.callers_max == 0 {
            return Err(Code::TooManyRequests);
        }
        let callers: Vec<_> = list.iter().filter(|slot| slot.phase == Phase::Waiting).map(Slot::peer).collect();
        let reserved = if callers.contains(&self.connection.peer.ip()) { 0 } else { limits.reserved };
        if callers.len() >= limits.callers_max + reserved {
            let mut waiting = list.iter_mut().filter(|slot| slot.phase == Phase::Waiting);
            let gone = waiting.find(|slot| sockets::state_of(&slot.connection.stream).has_peer_ended);
            gone.ok_or(Code::TooManyRequests)?.phase = Phase::Answering;
        }
        self.find_slot(&mut list)?.phase = Phase::Waiting;
        Ok(())
    }

    /// Whether the client has gone, or another caller has replaced it. Called repeatedly while the answer waits.
    pub fn is_gone(&self) -> bool {
        sockets::state_of(&self.connection.stream).has_ended
            || !self.find_slot(&mut lock(&self.slots.list)).is_ok_and(|own| own.phase == Phase::Waiting)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        lock(&self.slots.list).retain(|slot| !self.is_own(slot));
    }
}
