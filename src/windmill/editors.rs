//! Finds the last editor of each item, as far as Windmill reports it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use miniserde::json::{Array, Object, Value};

use crate::model::Identity;
use crate::util::{Deadline, percent, redact, time};
use crate::windmill::api::{self, two_texts};
use crate::windmill::{Account, ItemId, ItemKind, Windmill};

/// The time limit of all questions together. A sync should not take noticeably longer because of names.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The domain of the address if Windmill gives no address for an editor. No mail can be sent to it (RFC 2606).
const NO_ADDRESS: &str = "windmill.invalid";

/// The kinds of which Windmill reports the editor, and the question about one item. Its lists do not name the editors of
/// scripts and apps.
const QUESTIONS: [(&[ItemKind], &str); 3] = [
    (&[ItemKind::Script], "scripts/get/p/"),
    (&[ItemKind::Flow], "flows/get/"),
    (&[ItemKind::App, ItemKind::RawApp], "apps/get/p/"),
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
pub fn last_edits(windmill: &Windmill<'_>, account: &Account, items: &[&ItemId]) -> Edits {
    let mut edits = Edits::new();
    let Ok(left) = windmill.deadline.remaining() else { return edits };
    let deadline = Deadline::after(left.min(TIME_MAX), windmill.deadline.cancel_token());
    let windmill = Windmill { deadline: &deadline, agent: windmill.agent.clone(), ..*windmill };
    for (kinds, question) in QUESTIONS {
        for item in items.iter().copied().filter(|item| kinds.contains(&item.kind)) {
            // The path may contain any character.
            let question = [question, &percent::encode_path(&item.path)].concat();
            let edit = match windmill.ask_for_names(&question) {
                Some(Value::Object(answer)) => edit_of(&answer),
                _ => Edit::default(),
            };
            // A gateway may refuse an encoded path. Any other failure would repeat for every item, because the server has
            // no such endpoint, does not report editors, or is slow.
            if edit == Edit::default() && !question.contains('%') {
                break;
            }
            edits.insert(item.clone(), edit);
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
