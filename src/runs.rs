//! Which syncs run, which wait, and who shares one: one at a time for each workspace, and none lost.
//!
//! A run has a thread of its own, so that it goes on when its client is gone. It does not know what a sync does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::names::WorkspaceId;
use crate::outcome::{Changed, SyncResult};
use crate::sync::new_run_id;
use crate::sync_request::SyncRequest;

/// Runs that may wait at one time, over all workspaces; each may hold secrets of its request.
const WAITING_RUNS_MAX: usize = 32;
/// Workspaces in which a sync may go on at one time; each takes a `wmill` with 100 MB and a checkout.
const RUNNING_MAX: usize = 4;

/// Does the work of one run.
pub type Work = dyn Fn(&SyncRequest, &str) -> SyncResult + Send + Sync;

/// All runs of this process.
pub struct Runs {
    work: Box<Work>,
    waiting_time_max: Duration,
    board: Mutex<Board>,
    /// Told whenever a run ends or the board closes.
    ended: Condvar,
}

#[derive(Default)]
struct Board {
    /// One for each workspace in which a run goes on; few enough to look through.
    lanes: Vec<Lane>,
    is_closed: bool,
}

impl Board {
    fn lane(&mut self, workspace: &WorkspaceId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.workspace == *workspace)
    }
}

/// The runs of one workspace: at most one goes on, the others wait in the order in which they came.
struct Lane {
    workspace: WorkspaceId,
    waiting: Vec<Arc<Run>>,
}

/// One run, waiting, going on, or ended.
pub struct Run {
    /// Its name.
    pub id: String,
    request: SyncRequest,
    since: Instant,
    result: Mutex<Option<SyncResult>>,
}

impl Run {
    fn result(&self) -> MutexGuard<'_, Option<SyncResult>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a run ends that waited for too long.
    fn give_up(&self, waiting_time_max: Duration) {
        let message = format!(
            "the sync of workspace `{}` was ended in step `queue`: it waited for its turn longer than SYNC_TIMEOUT ({} s)",
            self.request.workspace,
            waiting_time_max.as_secs()
        );
        *self.result() = Some(self.failure(Code::Timeout, message));
    }

    fn failure(&self, code: Code, message: String) -> SyncResult {
        SyncResult {
            code,
            message,
            run_id: self.id.clone(),
            workspace: self.request.workspace.to_string(),
            branch: self.request.branch.to_string(),
            commit: None,
            changed: Changed::default(),
            warnings: Vec::new(),
            duration_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Runs {
    /// No runs yet; each will do `work`, and wait for its turn for at most `waiting_time_max`.
    #[must_use]
    pub fn new(work: Box<Work>, waiting_time_max: Duration) -> Arc<Self> {
        Arc::new(Self { work, waiting_time_max, board: Mutex::default(), ended: Condvar::new() })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // A panic while the board is held leaves it as it was: each change is one step.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a run, or lets it wait for the one that goes on; a run that waits and asks for the same is shared.
    ///
    /// # Errors
    /// [`Code::ShuttingDown`] or [`Code::TooManyRequests`].
    pub fn submit(self: &Arc<Self>, request: SyncRequest) -> Result<Arc<Run>, Code> {
        let mut board = self.board();
        if board.is_closed {
            return Err(Code::ShuttingDown);
        }
        let waiting: usize = board.lanes.iter().map(|lane| lane.waiting.len()).sum();
        let workspace = request.workspace.clone();
        if let Some(lane) = board.lane(&workspace)
            && let Some(same) = lane.waiting.iter().find(|run| run.request == request)
        {
            log::info!("a request for workspace {workspace} shares the run that waits: {}", same.id);
            return Ok(Arc::clone(same));
        }
        let has_lane = board.lane(&workspace).is_some();
        let is_full = if has_lane { waiting >= WAITING_RUNS_MAX } else { board.lanes.len() >= RUNNING_MAX };
        // What the service is there for is not crowded out by what a neighbour asks of it.
        if is_full && !request.configured {
            return Err(Code::TooManyRequests);
        }
        let run = Arc::new(Run { id: new_run_id(), request, since: Instant::now(), result: Mutex::default() });
        match board.lane(&workspace) {
            // Something goes on in this workspace; its thread takes the waiting ones up.
            Some(lane) => {
                log::info!("run {} waits for its turn: a sync of workspace {workspace} goes on", run.id);
                let others = lane.waiting.iter().position(|waiting| !waiting.request.configured);
                let place = others.filter(|_| run.request.configured).unwrap_or(lane.waiting.len());
                lane.waiting.insert(place, Arc::clone(&run));
            }
            None => {
                let (runs, first) = (Arc::clone(self), Arc::clone(&run));
                let thread = std::thread::Builder::new().name("run".to_owned());
                if thread.spawn(move || runs.work_off(first)).is_err() {
                    return Err(Code::TooManyRequests);
                }
                board.lanes.push(Lane { workspace, waiting: Vec::new() });
            }
        }
        Ok(run)
    }

    fn work_off(&self, first: Arc<Run>) {
        let workspace = first.request.workspace.clone();
        let mut next = Some(first);
        while let Some(run) = next {
            let worked = catch_unwind(AssertUnwindSafe(|| (self.work)(&run.request, &run.id)));
            let mut result =
                worked.unwrap_or_else(|_| run.failure(Code::Internal, "the sync ended by a fault of ours".to_owned()));
            result.duration_ms = u64::try_from(run.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            *run.result() = Some(result);
            next = self.take_next(&workspace);
            self.ended.notify_all();
        }
    }

    /// The first that waits; where none does, the lane goes. Whoever waits for a run's end sees to it that it does not
    /// wait for too long; a run that nobody waits for is looked at here.
    fn take_next(&self, workspace: &WorkspaceId) -> Option<Arc<Run>> {
        let mut board = self.board();
        let lane = board.lane(workspace)?;
        while !lane.waiting.is_empty() {
            let run = lane.waiting.remove(0);
            if run.since.elapsed() < self.waiting_time_max {
                return Some(run);
            }
            log::error!("run {}: it waited for its turn longer than SYNC_TIMEOUT", run.id);
            run.give_up(self.waiting_time_max);
        }
        board.lanes.retain(|lane| lane.workspace != *workspace);
        None
    }

    /// Waits for a run's end, or until its caller is gone; that is asked again after [`Runs::look_again`].
    #[must_use]
    pub fn wait(&self, run: &Run, is_gone: &dyn Fn() -> bool) -> Option<SyncResult> {
        let mut board = self.board();
        loop {
            if let Some(result) = run.result().clone() {
                return Some(result);
            }
            if is_gone() {
                return None;
            }
            let lane = board.lane(&run.request.workspace);
            let place = lane.and_then(|lane| {
                let place = lane.waiting.iter().position(|waiting| waiting.id == run.id)?;
                Some((lane, place))
            });
            let Some((lane, place)) = place else {
                board = self.ended.wait(board).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = self.waiting_time_max.saturating_sub(run.since.elapsed());
            if left.is_zero() {
                lane.waiting.remove(place);
                run.give_up(self.waiting_time_max);
                self.ended.notify_all();
                continue;
            }
            board = self.ended.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has everybody who waits see whether its caller is gone.
    pub fn look_again(&self) {
        // With the board, so that nobody is between asking and waiting.
        let _board = self.board();
        self.ended.notify_all();
    }

    /// Takes no more runs and ends those that wait; what goes on goes on.
    pub fn close(&self) {
        let mut board = self.board();
        board.is_closed = true;
        for run in board.lanes.iter_mut().flat_map(|lane| lane.waiting.drain(..)) {
            let message = "the service is ending; the sync had not begun".to_owned();
            *run.result() = Some(run.failure(Code::ShuttingDown, message));
        }
        self.ended.notify_all();
    }

    /// Waits until no run goes on, at most `time`; whether that came true.
    #[must_use]
    pub fn wait_until_idle(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut board = self.board();
        while !board.lanes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            board = self.ended.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The workspaces in which a run goes on.
    #[must_use]
    pub fn running(&self) -> Vec<WorkspaceId> {
        self.board().lanes.iter().map(|lane| lane.workspace.clone()).collect()
    }
}
