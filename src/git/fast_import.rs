//! Writes a chain of commits as input for `git fast-import`.

use std::time::SystemTime;

use crate::git::object::{Entry, ObjectId};
use crate::model::names::Identity;

/// The ref on which a chain of commits is made.
pub(super) const CHAIN_REF: &str = "refs/sync/chain";

/// One commit of a chain.
pub struct ItemCommit<'a> {
    /// Who made the change.
    pub author: &'a Identity,
    /// When the change was made; `None` means now.
    pub time: Option<SystemTime>,
    /// The whole message.
    pub message: String,
    /// The changed files with their entries after the commit; `None` deletes the file.
    pub changes: Vec<(Vec<u8>, Option<Entry>)>,
}

/// Returns the seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Returns input for `git fast-import` that makes these commits on top of `parent`.
pub(super) fn chain(parent: Option<&ObjectId>, committer: &Identity, now: u64, links: &[ItemCommit<'_>]) -> Vec<u8> {
    // A killed run may have left commits on this ref.
    let mut orders = format!("reset {CHAIN_REF}\n\n").into_bytes();
    for (index, link) in links.iter().enumerate() {
        let time = link.time.map_or(now, seconds);
        let mut head = format!(
            "commit {CHAIN_REF}\nauthor {} {time} +0000\ncommitter {committer} {now} +0000\ndata {}\n{}\n",
            link.author,
            link.message.len(),
            link.message
        );
        if index == 0 {
            head.extend(parent.map(|parent| format!("from {parent}\n")));
        }
        orders.extend_from_slice(head.as_bytes());
        // Deletions come first, because a file may become a folder, or a folder a file.
        for (path, _) in link.changes.iter().filter(|(_, entry)| entry.is_none()) {
            orders.extend_from_slice(b"D ");
            put_quoted(&mut orders, path);
        }
        for (path, entry) in &link.changes {
            if let Some(entry) = entry {
                orders.extend_from_slice(format!("M {:o} {} ", entry.mode, entry.object).as_bytes());
                put_quoted(&mut orders, path);
            }
        }
    }
    orders.extend_from_slice(b"done\n");
    orders
}

/// Writes a path in quotes, escaped as in C, and the end of the line.
fn put_quoted(orders: &mut Vec<u8>, path: &[u8]) {
    orders.push(b'"');
    for byte in path {
        match byte {
            b'\n' => orders.extend_from_slice(b"\\n"),
            b'"' | b'\\' => orders.extend_from_slice(&[b'\\', *byte]),
            byte => orders.push(*byte),
        }
    }
    orders.extend_from_slice(b"\"\n");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_chain_says_who_what_and_on_what() {
        let id = |letter: &str| ObjectId::parse(&letter.repeat(40)).expect("40 digits");
        let us = Identity::parse("Us", "us@x").expect("a name");
        let ann = Identity::parse("Ann", "ann@x").expect("a name");
        let entry = Entry { mode: 0o100_644, object: id("b") };
        let time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        let quoted = b"a \"b\"\\c\nd\xff".to_vec();
        let links = [
            ItemCommit {
                author: &ann,
                time,
                message: "\u{fc}".to_owned(),
                changes: vec![(quoted, Some(entry)), (b"z".to_vec(), None)],
            },
            ItemCommit { author: &us, time: None, message: "m".to_owned(), changes: Vec::new() },
        ];
        let tip = id("c");
        let orders = String::from_utf8_lossy(&chain(Some(&tip), &us, 9, &links)).into_owned();
        let expected = format!(
            "reset refs/sync/chain\n\ncommit refs/sync/chain\nauthor Ann <ann@x> 7 +0000\ncommitter Us <us@x> 9 +0000\n\
             data 2\n\u{fc}\nfrom {tip}\nD \"z\"\n\
             M 100644 {} \"a \\\"b\\\"\\\\c\\nd\u{fffd}\"\n\
             commit refs/sync/chain\nauthor Us <us@x> 9 +0000\ncommitter Us <us@x> 9 +0000\ndata 1\nm\ndone\n",
            id("b")
        );
        assert_eq!(orders, expected);
    }
}
