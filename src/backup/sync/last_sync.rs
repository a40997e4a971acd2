//! The state at the last confirmed success of a checkout: what Windmill held, what `wmill` made of it, and with which
//! settings and programs. If nothing of it changed, no pull is needed. If only some items differ, only those are
//! pulled. Any doubt means a full sync.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use miniserde::{Deserialize, Serialize, json};

use crate::backup::sync::tip;
use crate::backup::{RemoteTip, RunContext};
use crate::git::ObjectId;
use crate::model::LeftOut;
use crate::request::SyncRequest;
use crate::util::{files, hash};
use crate::windmill::{Account, ChangedGroups, Digests, FoundItem, Program, Snapshot, snapshot};

/// Size limit for the state file: 8 KiB for each found item. Everything else is short.
const STATE_BYTES_MAX: u64 = 4 << 20;
/// How many found items are kept. The next pull has to find the others again.
const FOUND_MAX: usize = 500;
/// Size limit for the digests of all groups: 48 bytes for each entry of the largest export that is accepted.
const GROUPS_BYTES_MAX: u64 = 48 * snapshot::ENTRIES_MAX as u64;
/// The name of the state file in the checkout's folder.
const STATE_FILE: &str = "state.json";
/// The name of the file with the digests of the groups. The state has a digest of all of them.
const GROUPS_FILE: &str = "state.groups";
/// It is increased when the state's fields or their meaning change.
const STATE_VERSION: u32 = 8;

/// What is known about the last success; all fields are empty if nothing is known. The state of version 0.1.0 has other
/// fields, and is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The digest of the state with this field empty. It shows damage.
    pub digest: String,
    /// The tip that was confirmed.
    pub commit: String,
    /// Whether Windmill had files of a shared UI, so that we may remove those in the repository.
    pub shared_ui: bool,
    /// The start of the last full sync that offered all items to wmill and to the remote, in seconds since 1970.
    pub begun: u64,
    /// The version of this program, and the settings that shape a pull and its commit.
    pub settings: String,
    /// The `wmill` that pulled, if it gave its version.
    pub wmill: Option<Program>,
    /// The version of Windmill; `None` if it does not report one.
    pub windmill: Option<String>,
    /// The query of the export.
    pub query: String,
    /// The digests of what Windmill returned.
    pub digests: Digests,
    /// The tree of our folder in the commit; `None` if the next sync has to be a full one.
    pub tree: Option<String>,
    /// The warnings of that sync, which an unchanged sync repeats.
    pub warnings: Vec<String>,
    /// The items that were left out of the pull, with the reason.
    pub left_out: Vec<LeftOut>,
    /// The left-out items that wmill or the remote did not accept, so that they do not have to be found again.
    pub found: Vec<FoundItem>,
}

/// The current state, to compare it with the last success.
pub struct Now {
    /// What Windmill reports about itself and the token.
    pub account: Account,
    /// The `wmill` that pulls, if it gives its version.
    pub wmill: Option<Program>,
    /// What Windmill holds.
    pub snapshot: Snapshot,
}

/// The last success, and whether the next pull may build on it.
pub struct LastSync {
    /// What was saved.
    pub state: SavedState,
    folder: PathBuf,
    settings: String,
    /// Why the sync is a full one, no matter what Windmill and the remote answer.
    reason: Option<&'static str>,
    /// The start of this sync, if it offers the items again that wmill or the remote did not accept.
    offers_at: Option<u64>,
}

impl LastSync {
    /// Reads what is known about the checkout in `folder`, before any server is asked.
    pub fn open(run: RunContext<'_>, folder: &Path) -> Self {
        let (config, settings) = (run.env.config, settings(run));
        let state = read(&folder.join(STATE_FILE)).unwrap_or_default();
        // A clock before 1970 counts as 1970.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let force = run.request.flags.force.then_some("it was asked for");
        let is_due = state.is_due(now, config.full_sync_every);
        let reason = if config.skip_unchanged { force } else { Some("SKIP_UNCHANGED is false") };
        let reason = reason.or_else(|| state.is_of_others(&settings)).or(is_due);
        let offers_at = force.or(is_due).map(|_| now);
        Self { folder: folder.to_owned(), state, settings, reason, offers_at }
    }

    /// Returns whether the tip is the one of the last success, and the next pull may build on it.
    pub fn is_at(&self, tip: Option<&ObjectId>) -> bool {
        self.reason.is_none() && tip.is_some_and(|tip| tip.as_str() == self.state.commit)
    }

    /// Returns whether no earlier success is known.
    pub fn is_first(&self) -> bool {
        !self.folder.join(STATE_FILE).exists()
    }

    /// Returns the last success, if a new pull may build on it. The branch holds its result if the tip is the commit of
    /// that success (then `tip` is `None`), or if the tree of our folder is the same. In both cases the repository's
    /// `wmill.yaml` is the same too, and so is the query of the export.
    fn usable(&self, now: &Now, tip: Option<&RemoteTip>) -> Result<&SavedState, &'static str> {
        let last = &self.state;
        if let Some(reason) = self.reason {
            Err(reason)
        } else if tip.is_some_and(|tip| tip.commit.is_none()) {
            Err("the branch is not there")
        } else if tip.is_some_and(|tip| tip.tree.as_ref().map(ObjectId::as_str) != last.tree.as_deref()) {
            Err("the content of the branch changed")
        } else if now.account.server_version != last.windmill {
            Err("the version of Windmill changed")
        } else if now.wmill != last.wmill {
            Err("the version of wmill changed")
        } else {
            Ok(last)
        }
    }

    /// Returns the last success, if a new pull would have the same result.
    ///
    /// # Errors
    /// The reason why wmill has to be started.
    pub fn unchanged(&self, now: &Now, tip: Option<&RemoteTip>) -> Result<&SavedState, &'static str> {
        let last = self.usable(now, tip)?;
        if now.snapshot.digests == last.digests { Ok(last) } else { Err("the content of Windmill changed") }
    }

    /// Returns the groups of items that differ from the last success, if nothing else differs.
    ///
    /// # Errors
    /// The reason why the pull has to be a full one.
    pub fn changed_groups(&self, now: &Now, tip: &RemoteTip) -> Result<ChangedGroups, &'static str> {
        let (last, snapshot) = (self.usable(now, Some(tip))?, &now.snapshot);
        if snapshot.digests.shared != last.digests.shared {
            Err("something that all items share changed")
        } else if tip.plan.dedupes_lockfiles {
            Err("items share lock files")
        } else if !last.left_out.is_empty() || !snapshot.left_out.is_empty() {
            Err("items are left out")
        } else if last.warnings.iter().any(|warning| !tip.plan.warnings.contains(warning)) {
            Err("the last full sync warned of what a narrowed one does not see")
        } else {
            let earlier = files::read_file(&self.folder.join(GROUPS_FILE), GROUPS_BYTES_MAX).unwrap_or_default();
            snapshot.groups.changed_since(&earlier, &last.digests.groups)
        }
    }

    /// Whether `dependencies/` is known to have changed since the last success.
    pub fn is_of_other_dependencies(&self, now: &Now) -> bool {
        let dependencies = &self.state.digests.dependencies;
        !dependencies.is_empty() && *dependencies != now.snapshot.digests.dependencies
    }

    /// Returns the items that are left out without being offered, if they have not changed. Another version of `wmill`
    /// may accept them.
    pub fn refused(&self, now: &Now) -> &[FoundItem] {
        let Self { state, settings, offers_at, .. } = self;
        let is_same = state.settings == *settings && state.wmill == now.wmill && now.wmill.is_some();
        if is_same && offers_at.is_none() { &state.found } else { &[] }
    }

    /// Saves a new tip with the same content in our folder, so that it is not fetched again.
    pub fn follow(&self, tip: &ObjectId) {
        if tip.as_str() != self.state.commit {
            self.write(&SavedState { commit: tip.to_string(), ..self.state.clone() });
        }
    }

    /// Saves a success. If that fails, a warning is logged, and the next sync is a full one. `tree` is the tree of our
    /// folder in the commit, if the next sync may build on it, which also needs the version of wmill. The next sync
    /// repeats `warnings` if nothing changed.
    pub fn save(&self, commit: &ObjectId, now: &Now, tree: Option<&ObjectId>, warnings: &[String]) {
        if let Err(error) = files::replace_file(&self.folder.join(GROUPS_FILE), now.snapshot.groups.as_bytes()) {
            log::warn!("cannot save the digests of the items: {error}");
        }
        let found = now.snapshot.found().unwrap_or_default();
        self.write(&SavedState {
            digest: String::new(),
            commit: commit.to_string(),
            shared_ui: now.snapshot.has_ui_files,
            begun: self.offers_at.unwrap_or(self.state.begun),
            settings: self.settings.clone(),
            wmill: now.wmill.clone(),
            windmill: now.account.server_version.clone(),
            query: now.snapshot.query.clone(),
            digests: now.snapshot.digests.clone(),
            tree: tree.filter(|_| now.wmill.is_some()).map(ObjectId::to_string),
            warnings: warnings.to_vec(),
            left_out: LeftOut::first_of(now.snapshot.left_out_list()),
            found: found.into_iter().take(FOUND_MAX).collect(),
        });
    }

    fn write(&self, state: &SavedState) {
        // A state that is too long cannot be read. Then each sync is a full one.
        if let Err(error) = files::replace_file(&self.folder.join(STATE_FILE), text(state).as_bytes()) {
            // The former state, if there is one, has another commit, which the next sync compares with the branch.
            log::warn!("cannot save the state of the success: {error}");
        }
    }
}

impl SavedState {
    /// Returns why a full sync is due, if one is.
    fn is_due(&self, now: u64, every: Duration) -> Option<&'static str> {
        match now.checked_sub(self.begun) {
            None => Some("the clock was set back"),
            Some(age) => (Duration::from_secs(age) >= every).then_some("FULL_SYNC_EVERY has passed"),
        }
    }

    /// Returns why no sync with these settings may build on this success, or `None` if one may.
    fn is_of_others(&self, settings: &str) -> Option<&'static str> {
        if self.tree.is_none() {
            return Some("no earlier success is known");
        }
        let other = "a setting that shapes the backup changed, or the version of this program";
        (self.settings != settings).then_some(other)
    }
}

/// Returns the version of this program, and all settings that shape what is pulled and committed. Message, author and
/// signature are left out, since they concern only new commits. The guards are left out, since they check only changes.
fn settings(run: RunContext<'_>) -> String {
    let SyncRequest { workspace, .. } = run.request;
    let (version, destination) = (env!("CARGO_PKG_VERSION"), run.request.destination());
    format!("{STATE_VERSION} {version} {workspace} {destination} {:?}", tip::asked_kinds(run.env.config))
}

/// Returns the items that the last sync of this backup left out because wmill or the remote did not accept them.
pub fn found(run: RunContext<'_>) -> Vec<FoundItem> {
    let last = read(&run.checkout_place().join(STATE_FILE)).filter(|last| last.settings == settings(run));
    last.unwrap_or_default().found
}

fn read(file: &Path) -> Option<SavedState> {
    let text = files::read_file(file, STATE_BYTES_MAX + 1).ok()?;
    parse(&text).filter(|_| text.len() as u64 <= STATE_BYTES_MAX)
}

/// Accepts only what [`text`] returns.
fn parse(text: &[u8]) -> Option<SavedState> {
    let mut state: SavedState = json::from_str(std::str::from_utf8(text).ok()?).ok()?;
    let digest = std::mem::take(&mut state.digest);
    (digest == digest_of(&state)).then_some(state)
}

fn text(state: &SavedState) -> String {
    json::to_string(&SavedState { digest: digest_of(state), ..state.clone() })
}

fn digest_of(state: &SavedState) -> String {
    hash::hex(&hash::hash_of(&[json::to_string(state).as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::RunDir;

    const COMMIT: &str = "1111111111111111111111111111111111111111";

    fn saved() -> SavedState {
        let digest = || "d".to_owned();
        SavedState {
            digest: String::new(),
            commit: COMMIT.to_owned(),
            shared_ui: true,
            begun: 1_000,
            settings: "s".to_owned(),
            wmill: Some(Program { file: "/bin/wmill 1 2".to_owned(), version: "1.819.0".to_owned() }),
            windmill: Some("CE v1".to_owned()),
            query: "a=b".to_owned(),
            digests: Digests { shared: digest(), dependencies: digest(), groups: digest() },
            tree: Some("2222222222222222222222222222222222222222".to_owned()),
            warnings: vec!["w \"x\"".to_owned()],
            left_out: vec![LeftOut { item: "script f/a".to_owned(), reason: "r".to_owned() }],
            found: Vec::new(),
        }
    }

    #[test]
    fn time_and_settings_are_checked_before_any_server_is_asked() {
        let outdated = |state: &SavedState, settings, now, every| {
            state.is_of_others(settings).or(state.is_due(now, Duration::from_secs(every)))
        };
        let check = |settings, now, every, expected| {
            assert_eq!(outdated(&saved(), settings, now, every), expected, "{settings} {now}");
        };
        let passed = Some("FULL_SYNC_EVERY has passed");
        check("s", 1_000, 60, None);
        check("s", 1_059, 60, None);
        check("s", 1_060, 60, passed);
        check("s", 1_000, 0, passed);
        check("s", 999, 60, Some("the clock was set back"));
        check("t", 1_000, 60, Some("a setting that shapes the backup changed, or the version of this program"));
        let unknown = Some("no earlier success is known");
        assert_eq!(outdated(&Default::default(), "s", 1_000, u64::MAX), unknown);
        assert_eq!(outdated(&SavedState { tree: None, ..saved() }, "s", 1_000, u64::MAX), unknown);
    }

    #[test]
    fn refused_items_are_offered_again_after_some_time_and_if_what_refused_them_changed() {
        let found = FoundItem { item: "script f/a".to_owned(), reason: "r".to_owned(), digest: "d".to_owned() };
        let now = Now { account: Account::default(), wmill: saved().wmill, snapshot: Snapshot::default() };
        let check = |state: SavedState, offers_at, count| {
            let (folder, settings) = (PathBuf::new(), "s".to_owned());
            let state = SavedState { found: vec![found.clone()], ..state };
            let last = LastSync { folder, state, settings, reason: None, offers_at };
            assert_eq!(last.refused(&now).len(), count);
        };
        check(saved(), None, 1);
        check(saved(), Some(1_050), 0);
        check(SavedState { settings: "t".to_owned(), ..saved() }, None, 0);
        check(SavedState { wmill: None, ..saved() }, None, 0);
    }

    #[test]
    fn a_damaged_state_is_not_read() {
        for tree in [None, saved().tree] {
            let state = SavedState { tree, ..saved() };
            let whole = text(&state);
            assert_eq!(parse(whole.as_bytes()).as_ref(), Some(&state));
            for end in 0..whole.len() {
                assert_eq!(parse(&whole.as_bytes()[..end]), None, "cut at {end}");
                let mut changed = whole.clone().into_bytes();
                changed[end] ^= 1;
                let read = parse(&changed);
                assert!(read.is_none_or(|read| read == state), "another byte at {end}");
            }
            assert_eq!(parse(whole.repeat(2).as_bytes()), None);
        }
        // A state of 0.1.0 costs a full sync.
        let old = format!("{{\"commit\":\"{COMMIT}\",\"shared_ui\":true,\"proof\":{{\"begun\":1}}}}");
        assert_eq!(parse(old.as_bytes()), None);
    }

    #[test]
    fn the_longest_state_can_be_read() {
        let found = FoundItem {
            item: format!("script f/{}", "é".repeat(600)),
            reason: "\"é\"".repeat(1000),
            digest: "d".repeat(64),
        };
        let run = RunDir::for_test("state").expect("a folder");
        let saved_and_read =
            |state: &SavedState| read(&run.write("state", text(state).as_bytes()).expect("a folder to write to"));
        let state = SavedState { found: vec![found; FOUND_MAX], ..saved() };
        assert_eq!(saved_and_read(&state).as_ref(), Some(&state));
        let longer = SavedState { found: [state.found.clone(), state.found].concat(), ..saved() };
        assert_eq!(saved_and_read(&longer), None);
    }
}
