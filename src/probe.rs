//! The digest of all that wmill would read from Windmill: the export, with the kinds that this sync takes out, and what
//! it asks beside that. The export streams through the digest and is never held in memory. What follows from a digest
//! is for others to say.
//!
//! wmill asks for a zip file. The probe asks for the same as a tar: Windmill need not compress it, and the bytes are
//! known to be the same for the same content.

use std::fmt;
use std::io::Read as _;
use std::time::Duration;

use crate::deadline::Interrupt;
use crate::digest::{Algorithm, Digest};
use crate::web::Pending;
use crate::windmill::{Asker, EXPORT, Windmill};

/// A larger export is not read to its end, and costs a full sync.
const EXPORT_BYTES_MAX: u64 = 4 << 30;
/// What is read at once; ureq itself buffers as much.
const CHUNK_BYTES: usize = 128 << 10;

/// A digest that is being made; or why there is none.
pub type Reading = Pending<Result<String, String>>;

/// Begins to read the export. `query` is that of a [`Plan`](crate::wmill_yaml::Plan).
///
/// # Errors
/// When no thread can be started.
pub fn export(windmill: &Windmill<'_>, query: &str, timeout: Duration) -> std::io::Result<Reading> {
    let (asker, path) = (windmill.asker(timeout), path(query));
    Pending::start(move |unwanted| digest_of_export(&asker, &path, unwanted))
}

/// Begins to read all that wmill would read.
///
/// # Errors
/// When no thread can be started.
pub fn all(windmill: &Windmill<'_>, query: &str, timeout: Duration) -> std::io::Result<Reading> {
    let (asker, path) = (windmill.asker(timeout), path(query));
    Pending::start(move |unwanted| {
        let (side, export) = asker.side(unwanted, || digest_of_export(&asker, &path, unwanted))?;
        Ok(whole(&export, &side))
    })
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

fn digest_of_export(asker: &Asker, path: &str, unwanted: &Interrupt) -> Result<String, String> {
    let mut answer = asker.open(path).map_err(failed)?;
    let mut body = answer.body_mut().with_config().limit(EXPORT_BYTES_MAX).reader();
    let mut digest = Digest::new(Algorithm::Sha256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut is_first = true;
    loop {
        let read = body.read(&mut chunk).map_err(failed)?;
        // The page of a gateway says nothing of the workspace, however often it is the same.
        if std::mem::take(&mut is_first) && matches!(chunk[..read].trim_ascii_start().first(), None | Some(b'<')) {
            return Err("the answer is no archive".to_owned());
        }
        if read == 0 {
            return Ok(digest.finish());
        }
        if unwanted.is_raised() {
            return Err("nobody waits for it any more".to_owned());
        }
        digest.update(&chunk[..read]);
    }
}
