//! Settings that are lists of words: kinds of items, and occasions of notifications.

use crate::model::names;

/// The kinds that are in the backup only if the settings include them. `windmill::wmill_yaml` has their keys.
const KINDS_TO_INCLUDE: [&str; 6] = ["schedules", "triggers", "users", "groups", "settings", "key"];
/// The kinds that can be left out of the backup.
const KINDS_TO_SKIP: [&str; 8] =
    ["secrets", "variables", "resources", "resource-types", "scripts", "flows", "apps", "folders"];

/// When a notification is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// `failure`
    Failure,
    /// `recovery`
    Recovery,
    /// `change`
    Change,
    /// `always`
    Always,
}

const OCCASIONS: [(&str, Occasion); 4] = [
    ("failure", Occasion::Failure),
    ("recovery", Occasion::Recovery),
    ("change", Occasion::Change),
    ("always", Occasion::Always),
];

pub(super) fn parse_kinds_included(text: &str) -> Result<Vec<&'static str>, String> {
    parse_words(text, &KINDS_TO_INCLUDE.map(|word| (word, word)))
}

pub(super) fn parse_kinds_skipped(text: &str) -> Result<Vec<&'static str>, String> {
    parse_words(text, &KINDS_TO_SKIP.map(|word| (word, word)))
}

pub(super) fn parse_occasions(text: &str) -> Result<Vec<Occasion>, String> {
    parse_words(text, &OCCASIONS)
}

/// Parses a list of words, separated by commas; `none` is the empty list. Fails if a word is unknown or comes twice, or
/// if `none` is not alone. If a word is unknown, the message names the permitted ones.
fn parse_words<T: Copy + PartialEq>(text: &str, permitted: &[(&str, T)]) -> Result<Vec<T>, String> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let mut values = Vec::new();
    for word in text.split(',').map(str::trim) {
        match permitted.iter().find(|(known, _)| *known == word) {
            Some((_, value)) if values.contains(value) => return Err(format!("{word} comes twice")),
            Some((_, value)) => values.push(*value),
            None if word == "none" => return Err("none does not go with other words".to_owned()),
            None => {
                let permitted: Vec<_> = permitted.iter().map(|(known, _)| *known).collect();
                let (word, permitted) = (names::quoted(word), permitted.join(", "));
                return Err(format!("{word} is unknown; permitted are {permitted}, or none alone"));
            }
        }
    }
    Ok(values)
}
