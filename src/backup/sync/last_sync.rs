//! What a success rests on: what was seen before the pull and is seen again after it, and what became of the commit. It
//! is noted for the next sync's shortcut.

use std::time::{Duration, Instant};

use crate::base::Base;
use crate::deadline::Deadline;
use crate::object::ObjectId;
use crate::outcome::Warnings;
use crate::probe::{self, Reading};
use crate::shortcut::{Now, Shortcut};
use crate::task::Task;
use crate::windmill::Account;
use crate::workplace::Workplace;

/// How much longer than twice the first reading the second may take: the success is not told before that, and without it
/// the next sync is a full one.
const SECOND_READING_GRACE: Duration = Duration::from_secs(20);

/// How a full sync ended well.
pub struct Confirmation<'a> {
    /// It is on the branch.
    pub commit: &'a ObjectId,
    /// What Windmill held after the pull.
    pub reading: Option<Reading>,
    /// The tree of our folder in it, where that is what it is to be.
    pub tree: Option<ObjectId>,
}

/// What is known when a full sync begins.
pub struct Known {
    /// What Windmill says of itself and of the token.
    pub account: Account,
    /// The version of wmill.
    pub version: Option<String>,
    /// What is known of earlier syncs.
    pub shortcut: Shortcut,
    /// The version of wmill, and which file it is.
    pub wmill: Option<String>,
    /// What Windmill held before the pull, where that was worth looking at, and could be.
    pub seen: Option<Seen>,
    /// How many warnings there were before those of a round.
    pub warnings: usize,
}

/// What Windmill held before the pull.
pub struct Seen {
    query: String,
    digest: String,
    took: Duration,
}

impl Seen {
    /// Of the digest of an export, with what was said beside it.
    #[must_use]
    pub fn new(query: &str, export: &str, account: &Account, begun: Instant) -> Self {
        Self { query: query.to_owned(), digest: probe::whole(export, &account.side), took: begun.elapsed() }
    }
}

impl Known {
    /// All that is known, with what the branch holds: the tip, and the tree of our folder where that was looked up.
    #[must_use]
    pub fn now<'a>(&'a self, tip: Option<&'a ObjectId>, tree: Option<&'a ObjectId>) -> Now<'a> {
        let seen = self.seen.as_ref().map(|seen| seen.digest.as_str());
        Now { seen, windmill: self.account.server_version.as_deref(), wmill: self.wmill.as_deref(), tip, tree }
    }

    /// After a pull: begins to read once more what Windmill holds. Only where that is what it held before can it be what
    /// wmill read. `None` where it would be of no use.
    #[must_use]
    pub fn read_again(&self, task: Task<'_>, place: &Workplace, base: &Base) -> Option<Reading> {
        let seen = self.seen.as_ref().filter(|seen| !task.request.dry_run && seen.query == base.plan.query)?;
        let timeout = probe::patience(&place.deadline).remaining().ok()?;
        probe::all(&task.windmill(place), &seen.query, self.shortcut.key()?, timeout).ok()
    }

    /// Notes a success. `warnings` are all that were given; of a sync that changed something, the next may not give them
    /// all again, and is a full one to find out.
    pub fn remember(&self, task: Task<'_>, base: &Base, confirmed: Confirmation<'_>, warnings: &Warnings) {
        let Confirmation { commit, reading, tree } = confirmed;
        let told = warnings.after(self.warnings);
        let will_be_told = base.tip.as_ref() == Some(commit) || told.iter().all(|it| base.plan.warnings.contains(it));
        let proof = reading.filter(|_| will_be_told).and_then(|reading| {
            let seen = self.seen.as_ref()?;
            let patience = Deadline::after(seen.took * 2 + SECOND_READING_GRACE, task.service.interrupt);
            let again = probe::digest(reading, &patience)?;
            if again != seen.digest {
                log::debug!("Windmill changed during the sync, so the next one is a full one");
                return None;
            }
            self.shortcut.proof(self.now(Some(commit), tree.as_ref()), &seen.query, told.to_vec())
        });
        let shared_ui = self.account.shared_ui.as_ref().is_some_and(|files| !files.is_empty());
        self.shortcut.remember(commit, shared_ui, proof);
    }
}
