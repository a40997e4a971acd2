//! Finds the last editor of each item, as far as Windmill reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use miniserde::json::{Array, Object, Value};

use crate::model::Identity;
use crate::util::{Deadline, percent, redact, time};
use crate::windmill::api::{self, two_texts};
use crate::windmill::{Account, ItemId, ItemKind, Windmill};

/// The time limit of all questions together. A sync should not take noticeably longer because of names.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The entries on one page of a list. Each entry has half a kilobyte.
const PER_PAGE: usize = 200;
/// The most pages of a list that are read. Lists begin with the latest edits, so changed items are on the first pages.
const PAGES_MAX: usize = 5;
/// The most items of a list that are requested one by one, because the list does not name their editor.
const SINGLE_QUESTIONS_MAX: usize = 50;
/// The domain of the address if Windmill gives no address for an editor. No mail can be sent to it (RFC 2606).
const NO_ADDRESS: &str = "windmill.invalid";

/// The kinds, the path of their list, and the path of one item. In Windmill 1.491, the lists of scripts and apps have
/// the time only.
const LISTS: [(&[ItemKind], &str, &str); 3] = [
    (&[ItemKind::Script], "scripts/list?include_without_main=true&", "scripts/get/p/"),
    (&[ItemKind::Flow], "flows/list?", "flows/get/"),
    (&[ItemKind::App, ItemKind::RawApp], "apps/list?", "apps/get/p/"),
];

/// The last edit of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The editor's name in Windmill.
    name: Option<String>,
    /// The editor as the author of a commit, if name and address are valid in one.
    pub author: Option<Identity>,
    /// The time of the edit. It is never in the future.
    pub time: Option<SystemTime>,
}

/// The last edit of each item, as far as Windmill gives it.
pub type Edits = BTreeMap<ItemId, Edit>;

/// Asks for the last edits of these items.
pub fn last_edits(windmill: &Windmill<'_>, account: &Account, items: &BTreeSet<ItemId>) -> Edits {
    let mut edits = Edits::new();
    let Ok(left) = windmill.deadline.remaining() else { return edits };
    let deadline = Deadline::after(left.min(TIME_MAX), windmill.deadline.cancel_token());
    let windmill = Windmill { deadline: &deadline, agent: windmill.agent.clone(), ..*windmill };
    for (kinds, list, single) in LISTS {
        ask_list(&windmill, list, kinds, items, &mut edits);
        let silent = edits.iter_mut().filter(|(item, edit)| edit.name.is_none() && kinds.contains(&item.kind));
        for (item, edit) in silent.take(SINGLE_QUESTIONS_MAX) {
            // The path may contain any character.
            let question = [single, &percent::encode_path(&item.path)].concat();
            let Some(Value::Object(answer)) = windmill.ask_for_names(&question) else {
                // A gateway may refuse an encoded path. Any other failure would repeat for every item, because the
                // server has no such endpoint or is slow.
                if question.contains('%') {
                    continue;
                }
                break;
            };
            let found = edit_of(&answer);
            *edit = Edit { time: found.time.or(edit.time), ..found };
        }
    }
    if edits.values().any(|edit| edit.name.is_some()) {
        let addresses = addresses(&windmill, account);
        for edit in edits.values_mut() {
            edit.author = edit.name.as_deref().and_then(|name| identity(name, &addresses));
        }
    }
    edits
}

/// Adds the edits of the items of these kinds that the list gives.
fn ask_list(windmill: &Windmill<'_>, list: &str, kinds: &[ItemKind], items: &BTreeSet<ItemId>, edits: &mut Edits) {
    for page in 1..=PAGES_MAX {
        if items.iter().all(|item| !kinds.contains(&item.kind) || edits.contains_key(item)) {
            return;
        }
        let answer = windmill.ask_for_names(&format!("{list}per_page={PER_PAGE}&page={page}"));
        let Some(Value::Array(lines)) = answer else { return };
        for line in &lines {
            let Value::Object(line) = line else { continue };
            let Some(path) = text(line, "path") else { continue };
            let of_kinds = kinds.iter().map(|kind| ItemId { kind: *kind, path: path.to_owned() });
            for item in of_kinds.filter(|item| items.contains(item)) {
                edits.entry(item).or_insert_with(|| edit_of(line));
            }
        }
        if lines.len() < PER_PAGE {
            return;
        }
    }
}

fn edit_of(line: &Object) -> Edit {
    let name = text(line, "edited_by").or_else(|| text(line, "created_by"));
    let time = text(line, "edited_at").or_else(|| text(line, "created_at"));
    let time = time.and_then(time::from_text);
    Edit { name: name.map(str::to_owned), author: None, time: time.map(|time| time.min(SystemTime::now())) }
}

/// Returns the addresses by user name, as far as Windmill gives them. The address of the token's own user is already
/// known.
fn addresses(windmill: &Windmill<'_>, account: &Account) -> Vec<(String, String)> {
    let users = match windmill.ask_for_names("users/list") {
        Some(Value::Array(users)) => users,
        _ => Array::new(),
    };
    let listed = users.iter().filter_map(|user| two_texts(user, ["username", "email"]));
    let mut addresses: Vec<_> = listed.filter(|(_, address)| !address.is_empty()).collect();
    addresses.extend(account.user.clone());
    addresses
}

/// Returns the author, if name and address are valid in a commit. A user without a user name in the workspace has the
/// address as name.
fn identity(name: &str, addresses: &[(String, String)]) -> Option<Identity> {
    let name = name.strip_prefix("u/").unwrap_or(name).trim();
    let address = addresses.iter().find(|(known, _)| known == name).map(|(_, address)| address.as_str());
    // Invisible characters are removed, so that two different names cannot look the same. Control characters stay, and
    // `Identity::parse` refuses them.
    let name: String = name.chars().filter(|letter| letter.is_control() || !redact::is_invisible(*letter)).collect();
    let identity = match address {
        Some(address) => Identity::parse(&name, address),
        None if name.contains('@') => Identity::parse(&name, &name),
        None => Identity::parse(&name, &format!("{name}@{NO_ADDRESS}")),
    };
    identity.inspect_err(|error| log::debug!("Windmill names an author that is left out: {error}")).ok()
}

fn text<'a>(line: &'a Object, name: &str) -> Option<&'a str> {
    api::text(line, name).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        let addresses = [("ann", "ann@example.com"), ("bad", "x>\ny"), ("c d", "c@d")];
        let addresses = addresses.map(|(name, address)| (name.to_owned(), address.to_owned()));
        assert_eq!(identity(name, &addresses).map(|found| found.to_string()).as_deref(), expected, "{name:?}");
    }

    #[test]
    fn an_author_has_a_valid_name_and_address() {
        check("ann", Some("ann <ann@example.com>"));
        check("u/ann", Some("ann <ann@example.com>"));
        check("c d", Some("c d <c@d>"));
        check("b\u{202e}o\u{200b}b", Some("bob <bob@windmill.invalid>"));
        check("bob", Some("bob <bob@windmill.invalid>"));
        check("eve@example.com", Some("eve@example.com <eve@example.com>"));
        for name in ["bad", "", "  ", "a\nSigned-off-by: b", "a\rb", "a <b@c>", "a\0b", "x\u{85}y", &"x".repeat(201)] {
            check(name, None);
        }
    }

    #[test]
    fn editor_and_time_are_read_from_both_pairs_of_fields() {
        let found = |line: &str| match miniserde::json::from_str(line) {
            Ok(Value::Object(line)) => edit_of(&line),
            _ => panic!("no object: {line}"),
        };
        let ann = found(r#"{"edited_by":"ann","edited_at":"2026-11-22T17:07:39.467468Z","created_by":"bob"}"#);
        assert_eq!((ann.name.as_deref(), ann.time.is_some()), (Some("ann"), true));
        let bob = found(r#"{"created_by":"bob","created_at":"yesterday"}"#);
        assert_eq!((bob.name.as_deref(), bob.time), (Some("bob"), None));
        assert_eq!(found(r#"{"edited_by":null,"created_at":7}"#), Edit::default());
        let future = found(r#"{"edited_at":"2999-01-01T00:00:00Z"}"#);
        assert!(future.time.is_some_and(|time| time <= SystemTime::now()));
    }
}
