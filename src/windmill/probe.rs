//! The digest of all that wmill would read from Windmill: the export, with the kinds that this sync takes out, and what
//! it asks beside that. The export streams through the digest and is never held in memory. What follows from a digest
//! is for others to say.
//!
//! wmill asks for a zip file. The probe asks for the same as a tar: Windmill need not compress it, and the bytes are
//! known to be the same for the same content.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::deadline::{Deadline, Interrupt};
use crate::digest::{DigestKey, KeyedDigest};
use crate::mailbox::Mailbox;
use crate::web::Pending;
use crate::windmill::{Asker, EXPORT, Windmill};

/// The part of the time left that may go to reading what Windmill holds. wmill reads the same and needs longer.
const TIME_SHARE: u32 = 3;
/// A larger export is not read to its end, and costs a full sync.
const EXPORT_BYTES_MAX: u64 = 4 << 30;
/// What is read at once; ureq itself buffers as much.
const CHUNK_BYTES: usize = 128 << 10;
/// Zeros that an archive ends with; one that was cut off, each time at the same place, would hide what changes behind it.
const ARCHIVE_END_BYTES: usize = 1024;
/// One is read, one is reckoned with, and one waits for whoever is faster.
const CHUNKS: usize = 3;
/// For the thread that reckons to wait for a chunk, which ends by the client's own time-out before that.
const CHUNK_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// A digest that is being made; or why there is none.
pub type Reading = Pending<Result<String, String>>;

/// Begins to read the export, for its digest under `key`. `query` is that of a [`Plan`](crate::wmill_yaml::Plan).
///
/// # Errors
/// When no thread can be started.
pub fn export(windmill: &Windmill<'_>, query: &str, key: &DigestKey, timeout: Duration) -> io::Result<Reading> {
    let (asker, path, key) = (windmill.asker(timeout), path(query), key.clone());
    Pending::start(move |unwanted| digest_of_export(&asker, &path, &key, unwanted))
}

/// Begins to read all that wmill would read.
///
/// # Errors
/// When no thread can be started.
pub fn all(windmill: &Windmill<'_>, query: &str, key: &DigestKey, timeout: Duration) -> io::Result<Reading> {
    let (asker, path, key) = (windmill.asker(timeout), path(query), key.clone());
    Pending::start(move |unwanted| {
        let (side, export) = asker.side(unwanted, || digest_of_export(&asker, &path, &key, unwanted))?;
        Ok(whole(&export, &side))
    })
}

/// Until when a run that ends at this deadline reads what Windmill holds.
#[must_use]
pub fn patience(deadline: &Deadline) -> Deadline {
    Deadline::after(deadline.remaining().unwrap_or_default() / TIME_SHARE, deadline.interrupt())
}

/// Waits for a digest. That there is none is not a fault, but a reason for a full sync.
#[must_use]
pub fn digest(reading: Reading, patience: &Deadline) -> Option<String> {
    match reading.wait(patience) {
        Ok(Ok(digest)) => return Some(digest),
        Ok(Err(why)) => log::debug!("what Windmill holds cannot be seen: {why}"),
        Err(_) => log::debug!("what Windmill holds cannot be seen in time"),
    }
    None
}

/// The digest of all, of those of the export and of what is asked beside it.
#[must_use]
pub fn whole(export: &str, side: &str) -> String {
    [export, side].join(" ")
}

fn path(query: &str) -> String {
    [EXPORT, "&", query].concat()
}

fn failed(error: impl fmt::Display) -> String {
    error.to_string()
}

fn digest_of_export(asker: &Asker, path: &str, key: &DigestKey, unwanted: &Interrupt) -> Result<String, String> {
    let mut answer = asker.open(path).map_err(failed)?;
    let body = answer.body_mut().with_config().limit(EXPORT_BYTES_MAX).reader();
    // To read and to reckon take about as long, so each has a thread; the chunks go round.
    let (full, empty) = (Mailbox::new(CHUNKS), Mailbox::new(CHUNKS));
    for _ in 0..CHUNKS {
        empty.put(vec![0; CHUNK_BYTES]);
    }
    std::thread::scope(|scope| {
        let reckon = || {
            let mut digest = KeyedDigest::new(key);
            while let Some((chunk, length)) = full.take(CHUNK_TIME_MAX) {
                let mut chunk: Vec<u8> = chunk;
                if !digest.update(&mut chunk[..length]) {
                    // Whoever reads does not wait for chunks any more.
                    empty.close();
                    return Err("the digest cannot be reckoned".to_owned());
                }
                empty.put(chunk);
            }
            Ok(digest.finish())
        };
        let reckoning = std::thread::Builder::new().spawn_scoped(scope, reckon).map_err(failed)?;
        let read = read(body, &full, &empty, unwanted);
        full.close();
        let digest = reckoning.join().unwrap_or_else(|_| Err("a thread ended early".to_owned()));
        // What was read and not reckoned with would be missing from the digest.
        let left = full.take(Duration::ZERO).map_or(Ok(()), |_| Err("a thread gave up".to_owned()));
        read.and(left).and(digest)
    })
}

/// Reads to the end.
fn read(
    mut body: impl io::Read,
    full: &Mailbox<(Vec<u8>, usize)>,
    empty: &Mailbox<Vec<u8>>,
    unwanted: &Interrupt,
) -> Result<(), String> {
    let (mut is_first, mut zeros) = (true, 0);
    loop {
        let Some(mut chunk) = empty.take(CHUNK_TIME_MAX) else { return Err("the digest takes too long".to_owned()) };
        let length = fill(&mut body, &mut chunk).map_err(failed)?;
        // The page of a gateway says nothing of the workspace, however often it is the same.
        if std::mem::take(&mut is_first) && matches!(chunk[..length].trim_ascii_start().first(), None | Some(b'<')) {
            return Err("the answer is no archive".to_owned());
        }
        if length == 0 {
            let is_whole = zeros >= ARCHIVE_END_BYTES;
            return if is_whole { Ok(()) } else { Err("the archive has no end".to_owned()) };
        }
        let at_the_end = chunk[..length].iter().rev().take_while(|byte| **byte == 0).count();
        zeros = if at_the_end == length { zeros + length } else { at_the_end };
        if unwanted.is_raised() {
            return Err("nobody waits for it any more".to_owned());
        }
        full.put((chunk, length));
    }
}

/// Reads until the chunk is full or there is no more, so that the same bytes always come in the same chunks.
fn fill(body: &mut impl io::Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match body.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
