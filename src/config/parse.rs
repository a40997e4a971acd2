//! Parses the values of single settings. Most errors quote the value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::model::{ADMINS, WorkspaceId, names};
use crate::util::LogFormat;

/// The longest duration: longer than any useful one, and short enough to be added to a clock without overflow.
const DURATION_SECONDS_MAX: u64 = 3_650 * 24 * 3_600;
/// The longest template of a commit message, which is a subject line.
const MESSAGE_BYTES_MAX: usize = 1_000;
const USERNAME_BYTES_MAX: usize = 200;
/// The most workspaces that can be listed. Each needs a checkout and an entry in `/status`.
pub const WORKSPACES_MAX: usize = 64;

/// The configured workspaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workspaces {
    /// One or more workspaces, without duplicates.
    Listed(Vec<WorkspaceId>),
    /// All workspaces that the token sees, except [`ADMINS`]. Each run asks Windmill for them.
    All,
}

impl Workspaces {
    /// Returns whether this workspace can be one of the configured ones.
    pub fn hold(&self, workspace: &WorkspaceId) -> bool {
        match self {
            Self::Listed(listed) => listed.contains(workspace),
            Self::All => workspace.as_str() != ADMINS,
        }
    }

    /// Returns the workspace if exactly one is listed: a run that names no workspace then has one result.
    pub fn single(&self) -> Option<&WorkspaceId> {
        match self {
            Self::Listed(listed) if listed.len() == 1 => listed.first(),
            _ => None,
        }
    }
}

pub(super) fn refused<T>(text: &str, why: &str) -> Result<T, String> {
    Err([&names::quoted(text), " ", why].concat())
}

pub(super) fn parse_workspaces(text: &str) -> Result<Workspaces, String> {
    if text.trim() == "*" {
        return Ok(Workspaces::All);
    }
    let mut listed = Vec::new();
    for id in text.split(',') {
        let id = WorkspaceId::parse(id.trim())?;
        if listed.contains(&id) {
            return Err([id.as_str(), " comes twice"].concat());
        }
        listed.push(id);
    }
    if listed.len() > WORKSPACES_MAX {
        return Err(format!("has more than {WORKSPACES_MAX} workspaces"));
    }
    Ok(Workspaces::Listed(listed))
}

pub(super) fn parse_username(text: &str) -> Result<String, String> {
    // Basic authentication ends the user name at the first colon.
    let is_bad = |letter: char| letter.is_control() || letter == ':';
    let rules = [
        (text.contains(is_bad), "has a colon or a control character in it"),
        (text.len() > USERNAME_BYTES_MAX, "is longer than 200 bytes"),
    ];
    names::checked("user name", text, &rules)
}

pub(super) fn parse_message(text: &str) -> Result<String, String> {
    let text = text.trim();
    let rules = [
        (text.is_empty(), "is empty"),
        (text.contains(char::is_control), "is not one line of printable text"),
        (text.len() > MESSAGE_BYTES_MAX, "is longer than 1000 bytes"),
    ];
    names::checked("message", text, &rules)
}

pub(super) fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => refused(text, "is neither true nor false"),
    }
}

pub(super) fn parse_percent(text: &str) -> Result<u8, String> {
    match parse_digits(text) {
        // The value is at most 100, so it fits.
        Some(percent @ 0..=100) => Ok(u8::try_from(percent).unwrap_or(100)),
        _ => refused(text, "is not a number from 0 to 100"),
    }
}

/// Parses a number that has only digits; Rust itself would accept a plus sign too.
pub(super) fn parse_digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600)];
    let with_unit = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (digits, unit_seconds) = with_unit.unwrap_or((text, 1));
    let Some(number) = parse_digits(digits) else {
        return refused(text, "is not a duration: give 90s, 30m, 24h, or a number of seconds");
    };
    match number.checked_mul(unit_seconds) {
        Some(seconds @ 0..=DURATION_SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => refused(text, "is longer than 3650 days"),
    }
}

pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => refused(text, "leaves no time at all"),
        timeout => Ok(timeout),
    }
}

pub(super) fn parse_absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains(char::is_control) {
        return refused(text, "is not an absolute path");
    }
    Ok(path)
}

pub(super) fn parse_data_dir(text: &str) -> Result<PathBuf, String> {
    let path = parse_absolute(text)?;
    if path.parent().is_none() {
        return refused(text, "is the root of the file system: give a folder of its own");
    }
    Ok(path)
}

/// Checks a path for `ssh`, which splits the value of this option at spaces and expands text after a percent or dollar
/// sign.
pub(super) fn parse_known_hosts(text: &str) -> Result<PathBuf, String> {
    let is_split = |letter: char| letter.is_whitespace() || letter.is_control() || "\"'\\%$*?".contains(letter);
    if text.contains(is_split) {
        return refused(text, "has a character that ssh does not take as it is");
    }
    parse_absolute(text)
}

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().or_else(|_| refused(text, "is not an address with a port, such as 0.0.0.0:8080"))
}

pub(super) fn parse_log_level(text: &str) -> Result<LevelFilter, String> {
    match text.parse() {
        Ok(LevelFilter::Off) | Err(_) => refused(text, "is not one of error, warn, info, debug and trace"),
        Ok(level) => Ok(level),
    }
}

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    let word = one_of(&text.to_ascii_lowercase(), &["text", "json"])?;
    Ok(if word == "json" { LogFormat::Json } else { LogFormat::Text })
}

/// The kinds that are in the backup only if the settings include them. `windmill::wmill_yaml` has their keys.
pub(super) const KINDS_TO_INCLUDE: [&str; 6] = ["schedules", "triggers", "users", "groups", "settings", "key"];
/// The kinds that can be left out of the backup.
pub(super) const KINDS_TO_SKIP: [&str; 8] =
    ["secrets", "variables", "resources", "resource-types", "scripts", "flows", "apps", "folders"];

/// The events that a notification can be about.
pub(super) const OCCASIONS: [&str; 4] = ["failure", "recovery", "change", "always"];

/// Parses a list of words, separated by commas; `none` is the empty list. Fails if a word is unknown or comes twice.
pub(super) fn parse_words(text: &str, permitted: &[&'static str]) -> Result<Vec<&'static str>, String> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let mut words = Vec::new();
    for word in text.split(',').map(str::trim) {
        let word = one_of(word, permitted).map_err(|why| why + ", or none alone")?;
        if words.contains(&word) {
            return Err(format!("{word} comes twice"));
        }
        words.push(word);
    }
    Ok(words)
}

/// Returns the word if it is permitted. If it is not, the message names the permitted ones.
pub(super) fn one_of(text: &str, permitted: &[&'static str]) -> Result<&'static str, String> {
    let known = permitted.iter().find(|word| **word == text).copied();
    known.ok_or_else(|| format!("{} is not one of {}", names::quoted(text), permitted.join(", ")))
}
