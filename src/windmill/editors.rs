//! Finds the last editor of each item, as far as Windmill reports it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use miniserde::Deserialize;
use miniserde::json::{Array, Value};

use crate::model::Identity;
use crate::util::{Deadline, Limits, Retry, percent, redact, time};
use crate::windmill::api::{ANSWER_LIMITS, two_texts};
use crate::windmill::{Account, ItemId, ItemKind, Windmill};

/// The time limit of all questions together. A sync should not take noticeably longer because of names.
const TIME_MAX: Duration = Duration::from_secs(10);
/// After so many items in a row without an editor, no more are asked for: the server has no such endpoint, or does not
/// report editors. A single item may be new or gone, or have more than is read.
const MISSES_MAX: usize = 3;
/// The limits for the answer about one item. Nothing is kept of its content, which can have thousands of objects.
const ITEM_LIMITS: Limits = Limits { depth: 500, values: 1 << 20, containers: 1 << 20 };
/// The domain of the address if Windmill gives no address for an editor. No mail can be sent to it (RFC 2606).
const NO_ADDRESS: &str = "windmill.invalid";

/// The last edit of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The editor as the author of a commit, if name and address are valid in one.
    pub author: Option<Identity>,
    /// The time of the edit. It is never in the future.
    pub time: Option<SystemTime>,
}

/// The last edit of each item, as far as Windmill gives it.
pub type Edits = BTreeMap<ItemId, Edit>;

/// What Windmill says about an item, as far as it is needed.
#[derive(Deserialize)]
struct Answer {
    edited_by: Option<String>,
    edited_at: Option<String>,
    created_by: Option<String>,
    created_at: Option<String>,
}

/// Asks for the last edits of these items.
pub fn last_edits(windmill: &Windmill<'_>, account: &Account, items: &[&ItemId]) -> Edits {
    let mut edits = Edits::new();
    let mut asked = items.iter().filter_map(|item| Some((*item, question_about(item)?))).peekable();
    let Some((left, _)) = windmill.deadline.remaining().ok().zip(asked.peek()) else { return edits };
    let deadline = Deadline::after(left.min(TIME_MAX), windmill.deadline.cancel_token());
    let windmill = Windmill { deadline: &deadline, agent: windmill.agent.clone(), ..*windmill };
    // If the time runs out later, names are missing, but none has a wrong address.
    let addresses = addresses(&windmill, account);
    let mut misses = 0;
    for (item, question) in asked {
        let answer = windmill.ask_for_names(&question, ITEM_LIMITS);
        if answer.as_ref().is_err_and(|error| error.is_end_of_run() || error.retry != Retry::Never) {
            break;
        }
        let edit = answer.ok().flatten().map(|answer| edit_of(answer, &addresses)).unwrap_or_default();
        misses = if edit == Edit::default() { misses + 1 } else { 0 };
        if misses == MISSES_MAX {
            break;
        }
        edits.insert((*item).clone(), edit);
    }
    edits
}

/// Returns the question about an item, if Windmill reports who edited such items. Its lists do not name the editors of
/// scripts and apps.
fn question_about(item: &ItemId) -> Option<String> {
    let question = match item.kind {
        ItemKind::Script => "scripts/get/p/",
        ItemKind::Flow => "flows/get/",
        ItemKind::App | ItemKind::RawApp => "apps/get/p/",
        _ => return None,
    };
    // The path may contain any character.
    Some([question, &percent::encode_path(&item.path)].concat())
}

fn edit_of(answer: Answer, addresses: &[(String, String)]) -> Edit {
    let either = |first: Option<String>, second| first.filter(|text| !text.is_empty()).or(second);
    let author = either(answer.edited_by, answer.created_by).and_then(|name| identity(&name, addresses));
    let time = either(answer.edited_at, answer.created_at).and_then(|time| time::from_text(&time));
    Edit { author, time: time.map(|time| time.min(SystemTime::now())) }
}

/// Returns the addresses by user name, as far as Windmill gives them. The address of the token's own user is already
/// known.
fn addresses(windmill: &Windmill<'_>, account: &Account) -> Vec<(String, String)> {
    let users = match windmill.ask_for_names("users/list", ANSWER_LIMITS) {
        Ok(Some(Value::Array(users))) => users,
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
        let found = |answer: &str| edit_of(miniserde::json::from_str(answer).expect(answer), &[]);
        let name = |edit: &Edit| edit.author.as_ref().map(|author| author.name().to_owned());
        let ann = found(r#"{"edited_by":"ann","edited_at":"2026-11-22T17:07:39.467468Z","created_by":"bob"}"#);
        assert_eq!((name(&ann).as_deref(), ann.time.is_some()), (Some("ann"), true));
        let bob = found(r#"{"value":[{}],"edited_by":"","created_by":"bob","created_at":"yesterday"}"#);
        assert_eq!((name(&bob).as_deref(), bob.time), (Some("bob"), None));
        assert_eq!(found(r#"{"edited_by":null}"#), Edit::default());
        assert!(miniserde::json::from_str::<Answer>(r#"{"created_at":7}"#).is_err());
        let future = found(r#"{"edited_at":"2999-01-01T00:00:00Z"}"#);
        assert!(future.time.is_some_and(|time| time <= SystemTime::now()));
    }
}
