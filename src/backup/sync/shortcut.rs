//! What was true at the last confirmed success of a checkout, and whether it still is, so that nothing need be pulled.
//! Any doubt means a full sync. It knows neither how Windmill is asked, nor how the remote is.
//!
//! What it rests on: Windmill gave the same before wmill read it and after, so wmill read just that; what came of it is
//! in the commit; and the same again, by the same programs and settings, upon the same folder, would come to the same.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use miniserde::{Deserialize, Serialize, json};

use crate::base;
use crate::digest::{Algorithm, Digest, DigestKey};
use crate::object::ObjectId;
use crate::scratch;
use crate::task::Task;
use crate::wmill_yaml::Asked;

/// Of the note in its file. Only warnings make it long, and those are cut to some paths each.
const NOTE_BYTES_MAX: u64 = 256 << 10;
/// Where the note lies in the checkout's folder.
const NOTE_FILE: &str = "state.json";
/// The note with the digest of its bytes before it, so that no damage passes for a fact.
const BEFORE_DIGEST: &str = "{\"digest\":\"";
const BEFORE_NOTE: &str = "\",\"note\":";
const AFTER_NOTE: &str = "}\n";
/// Goes up when the note's fields, or what they are made of, mean something else.
const NOTE_VERSION: u32 = 2;

/// What is known of the last success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The tip that was confirmed.
    pub commit: String,
    /// Whether Windmill had files of a shared UI, so that those in the repository are ours to take away.
    pub shared_ui: bool,
    /// Nothing where a shortcut must not rest on this success.
    pub proof: Option<Proof>,
}

/// What made a commit what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// When that sync began, in seconds since 1970.
    pub begun: u64,
    /// Of ourselves, and of the settings that shape a pull and its commit.
    pub settings: String,
    /// The version of wmill, and which file it is.
    pub wmill: String,
    /// The version of Windmill; nothing where it tells none.
    pub windmill: Option<String>,
    /// With which query the export was read.
    pub query: String,
    /// The digest of what Windmill gave before the pull, and after it.
    pub seen: String,
    /// The key of that digest; notes of the first version have none.
    pub key: Option<String>,
    /// The tree of our folder in the commit.
    pub tree: String,
    /// What was to be told of the repository and of what it leaves out.
    pub warnings: Vec<String>,
}

/// What is true now, as far as it has to be asked for.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    /// The digest of what Windmill gives.
    pub seen: Option<&'a str>,
    /// The version of Windmill.
    pub windmill: Option<&'a str>,
    /// The version of wmill, and which file it is.
    pub wmill: Option<&'a str>,
    /// The branch's tip.
    pub tip: Option<&'a ObjectId>,
    /// The tree of our folder at the tip, where that had to be looked up.
    pub tree: Option<&'a ObjectId>,
}

/// The chance of a sync not to be a full one.
pub struct Shortcut {
    file: PathBuf,
    note: Option<Note>,
    begun: u64,
    settings: String,
    /// Why there is none, whatever Windmill and the remote say.
    doubt: Option<&'static str>,
    /// With which query the export is read.
    query: String,
    /// Under which key its digest is; nothing where there is no randomness for one.
    key: Option<DigestKey>,
}

impl Shortcut {
    /// Looks at what is known of the checkout in `folder`, before anybody is asked.
    #[must_use]
    pub fn open(task: Task<'_>, folder: &Path) -> Self {
        let config = task.service.config;
        let (file, settings) = (folder.join(NOTE_FILE), settings(task));
        let note = read(&file);
        // Should the clock stand before 1970, no time has passed since any success.
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let proof = note.as_ref().and_then(|note| note.proof.as_ref());
        let doubt = if !config.skip_unchanged {
            Some("SKIP_UNCHANGED is false")
        } else if task.request.force {
            Some("it was asked for")
        } else {
            doubt(proof, &settings, begun, config.full_sync_every)
        };
        let plan = base::plan_without_file(config);
        // Whether that is allowed is no setting that shapes anything, and may be another than it was.
        let is_refused = plan.kinds.include_key && !config.allow_plaintext_secrets;
        let doubt = doubt.or(is_refused.then_some("the encryption key is asked for"));
        // A repository's wmill.yaml may have a say in the query; as long as our folder is the same, it is the same say.
        let query = match proof {
            Some(proof) if proof.settings == settings => proof.query.clone(),
            _ => plan.query,
        };
        let key = proof.and_then(|proof| DigestKey::parse(proof.key.as_ref()?)).or_else(DigestKey::random);
        Self { file, note, begun, settings, doubt, query, key }
    }

    /// Whether nothing speaks against it so far.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.doubt.is_none()
    }

    /// Whether the tip is the one of the last success.
    #[must_use]
    pub fn is_at(&self, tip: Option<&ObjectId>) -> bool {
        self.note.as_ref().map(|note| note.commit.as_str()) == tip.map(ObjectId::as_str)
    }

    /// With which query the export is read before anything is known of the repository.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.query
    }

    /// Under which key the digest of the export is to be compared with an earlier one, or a later.
    #[must_use]
    pub fn key(&self) -> Option<&DigestKey> {
        self.key.as_ref()
    }

    /// Whether there was a success, as far as we know.
    #[must_use]
    pub fn is_first(&self) -> bool {
        !self.file.exists()
    }

    /// Whether our last sync found a shared UI.
    #[must_use]
    pub fn wrote_shared_ui(&self) -> bool {
        self.note.as_ref().is_some_and(|note| note.shared_ui)
    }

    /// What would come of a full sync is known: the warnings of it.
    ///
    /// # Errors
    /// Why a full sync is needed.
    pub fn take(&self, now: Now<'_>) -> Result<&[String], &'static str> {
        if let Some(doubt) = self.doubt {
            return Err(doubt);
        }
        match &self.note {
            Some(Note { commit, proof: Some(proof), .. }) => match difference(commit, proof, now) {
                Some(difference) => Err(difference),
                None => Ok(&proof.warnings),
            },
            _ => Err("no earlier success is known"),
        }
    }

    /// Notes that the branch was found at another tip with the same in our folder, so that it need not be fetched again.
    pub fn follow(&self, tip: &ObjectId) {
        if let (Some(note), false) = (&self.note, self.is_at(Some(tip))) {
            write(&self.file, &Note { commit: tip.to_string(), ..note.clone() });
        }
    }

    /// What made a commit, if its tree is known and wmill tells its version.
    #[must_use]
    pub fn proof(&self, now: Now<'_>, query: &str, warnings: Vec<String>) -> Option<Proof> {
        Some(Proof {
            begun: self.begun,
            settings: self.settings.clone(),
            wmill: now.wmill?.to_owned(),
            windmill: now.windmill.map(str::to_owned),
            query: query.to_owned(),
            seen: now.seen?.to_owned(),
            key: Some(self.key.as_ref()?.to_text()),
            tree: now.tree?.to_string(),
            warnings,
        })
    }

    /// Notes a success. Losing the note costs a full sync and a warning, so a failure is not one of the sync's.
    pub fn remember(&self, commit: &ObjectId, shared_ui: bool, proof: Option<Proof>) {
        write(&self.file, &Note { commit: commit.to_string(), shared_ui, proof });
    }
}

/// Ourselves, and all settings that shape what is pulled and what is committed. Message, author and signature are of
/// commits that are still to be made; the guards look at changes.
fn settings(task: Task<'_>) -> String {
    let request = task.request;
    let Asked { mut includes, mut skips } = base::asked_kinds(task.service.config);
    // In whatever order they stand.
    [&mut includes, &mut skips].into_iter().flatten().for_each(|words| words.sort_unstable());
    format!(
        "{NOTE_VERSION} {} {} {} {includes:?} {skips:?}",
        env!("CARGO_PKG_VERSION"),
        request.workspace,
        request.destination(),
    )
}

/// Why a full sync is needed, as far as it need not be asked for.
fn doubt(proof: Option<&Proof>, settings: &str, now: u64, every: Duration) -> Option<&'static str> {
    let Some(proof) = proof else { return Some("no earlier success is known") };
    let Some(age) = now.checked_sub(proof.begun) else { return Some("the clock was set back") };
    if proof.settings != settings {
        Some("a setting that shapes the backup is another, or we are")
    } else if Duration::from_secs(age) >= every {
        Some("FULL_SYNC_EVERY has passed")
    } else {
        None
    }
}

/// What is not as it was.
fn difference(commit: &str, proof: &Proof, now: Now<'_>) -> Option<&'static str> {
    let is = |now: Option<&ObjectId>, then: &str| now.is_some_and(|now| now.as_str() == then);
    if now.seen.is_none() {
        Some("it could not be seen what Windmill holds")
    } else if now.seen != Some(&proof.seen) {
        Some("Windmill does not hold the same")
    } else if now.windmill != proof.windmill.as_deref() {
        Some("Windmill is of another version")
    } else if now.wmill != Some(&proof.wmill) {
        Some("wmill is another")
    } else if now.tip.is_none() {
        Some("the branch is not there")
    } else if !is(now.tip, commit) && !is(now.tree, &proof.tree) {
        Some("the branch does not hold the same")
    } else {
        None
    }
}

fn read(file: &Path) -> Option<Note> {
    let content = scratch::read_file(file, NOTE_BYTES_MAX + 1).ok()?;
    parse(std::str::from_utf8(&content).ok()?)
}

/// Only what [`text`] gives, to the byte.
fn parse(text: &str) -> Option<Note> {
    if text.len() as u64 > NOTE_BYTES_MAX {
        return None;
    }
    let (digest, note) = text.strip_prefix(BEFORE_DIGEST)?.split_once(BEFORE_NOTE)?;
    let note = note.strip_suffix(AFTER_NOTE)?;
    if digest_of(note) != digest {
        return None;
    }
    json::from_str(note).ok()
}

fn text(note: &Note) -> String {
    let note = json::to_string(note);
    [BEFORE_DIGEST, &digest_of(&note), BEFORE_NOTE, &note, AFTER_NOTE].concat()
}

fn digest_of(note: &str) -> String {
    let mut digest = Digest::new(Algorithm::Sha256);
    digest.update(note.as_bytes());
    digest.finish()
}

fn write(file: &Path, note: &Note) {
    // One that is too long to be read proves nothing, which costs a full sync each time.
    if let Err(error) = scratch::replace_file(file, text(note).as_bytes()) {
        // The former note, where there is one, is of another commit, and is held against the branch.
        log::warn!("cannot note the success: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "1111111111111111111111111111111111111111";
    const TREE: &str = "2222222222222222222222222222222222222222";

    fn proof() -> Proof {
        Proof {
            begun: 1_000,
            settings: "s".to_owned(),
            wmill: "1.819.0 /bin/wmill 1 2".to_owned(),
            windmill: Some("CE v1".to_owned()),
            query: "a=b".to_owned(),
            seen: "d".to_owned(),
            key: None,
            tree: TREE.to_owned(),
            warnings: vec!["w \"x\"".to_owned()],
        }
    }

    fn id(text: &str) -> ObjectId {
        ObjectId::parse(text).unwrap()
    }

    #[test]
    fn each_fact_has_to_be_as_it_was() {
        let (commit, tree, other) = (id(COMMIT), id(TREE), id("3333333333333333333333333333333333333333"));
        let proof = proof();
        let same = Now {
            seen: Some("d"),
            windmill: Some("CE v1"),
            wmill: Some("1.819.0 /bin/wmill 1 2"),
            tip: Some(&commit),
            tree: None,
        };
        let check = |now, expected| assert_eq!(difference(COMMIT, &proof, now), expected);
        check(same, None);
        check(Now { tree: Some(&other), ..same }, None);
        check(Now { tip: Some(&other), tree: Some(&tree), ..same }, None);
        let branch = Some("the branch does not hold the same");
        check(Now { tip: Some(&other), ..same }, branch);
        check(Now { tip: Some(&other), tree: Some(&other), ..same }, branch);
        check(Now { tip: Some(&other), tree: Some(&commit), ..same }, branch);
        check(Now { tip: None, tree: Some(&tree), ..same }, Some("the branch is not there"));
        check(Now { seen: Some("e"), ..same }, Some("Windmill does not hold the same"));
        check(Now { seen: None, ..same }, Some("it could not be seen what Windmill holds"));
        for windmill in [None, Some("CE v2"), Some("")] {
            check(Now { windmill, ..same }, Some("Windmill is of another version"));
        }
        for wmill in [None, Some("1.819.0 /bin/wmill 1 3")] {
            check(Now { wmill, ..same }, Some("wmill is another"));
        }
    }

    #[test]
    fn time_and_settings_are_looked_at_before_anybody_is_asked() {
        let proof = proof();
        let check = |settings, now, every, expected| {
            assert_eq!(doubt(Some(&proof), settings, now, Duration::from_secs(every)), expected, "{settings} {now}");
        };
        let passed = Some("FULL_SYNC_EVERY has passed");
        check("s", 1_000, 60, None);
        check("s", 1_059, 60, None);
        check("s", 1_060, 60, passed);
        check("s", 1_000, 0, passed);
        check("s", 999, 60, Some("the clock was set back"));
        check("t", 1_000, 60, Some("a setting that shapes the backup is another, or we are"));
        assert_eq!(doubt(None, "s", 1_000, Duration::MAX), Some("no earlier success is known"));
    }

    #[test]
    fn a_note_is_read_as_it_was_written_or_not_at_all() {
        for proof in [None, Some(proof())] {
            let note = Note { commit: COMMIT.to_owned(), shared_ui: true, proof };
            let whole = text(&note);
            assert_eq!(parse(&whole), Some(note));
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), None, "cut at {end}");
                let mut changed = whole.clone().into_bytes();
                changed[end] ^= 1;
                assert_eq!(std::str::from_utf8(&changed).ok().and_then(parse), None, "another byte at {end}");
            }
            assert_eq!(parse(&(whole.clone() + "\n")), None);
            assert_eq!(parse(&(" ".to_owned() + &whole)), None);
        }
        // What the first version wrote is still known; that it proves nothing any more is for its settings to say.
        let old = json::to_string(&Note { commit: COMMIT.to_owned(), shared_ui: true, proof: Some(proof()) });
        let old = old.replace("\"key\":null,", "");
        assert!(!old.contains("key"), "{old}");
        let old = parse(&[BEFORE_DIGEST, &digest_of(&old), BEFORE_NOTE, &old, AFTER_NOTE].concat()).expect("a note");
        assert_eq!((old.commit.as_str(), old.shared_ui, old.proof), (COMMIT, true, Some(proof())));
        // A note of another make is whole, and is none of ours.
        let other = "{\"commit\":1}";
        assert_eq!(parse(&[BEFORE_DIGEST, &digest_of(other), BEFORE_NOTE, other, AFTER_NOTE].concat()), None);
    }
}
