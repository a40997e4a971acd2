//! The environment variables that hold the settings, and the options that override them.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// One of our environment variables.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The value if it is not set; `None` if it has no default.
    pub default: Option<&'static str>,
    /// Whether its value is a secret. A secret can also come from a file, which the variable with the suffix `_FILE`
    /// names.
    pub secret: bool,
}

/// The environment of the process.
#[derive(Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Stores the variables unchanged. [`Config::new`](super::Config::new) reports the variables that it reads and that
    /// are not UTF-8 or are in quotes.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    /// Returns the value of a variable; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.read(name).ok().flatten()
    }

    /// Returns the value of a variable, or what is wrong with it.
    pub(super) fn read(&self, name: &str) -> Result<Option<&str>, String> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        match value.to_str() {
            None => Err(format!("{name} is not UTF-8")),
            Some(value) if is_in_quotes(value) => {
                Err(format!("{name} is in quotes, which this kind of env file keeps: leave them out"))
            }
            Some(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        }
    }
}

/// Returns whether the value is in quotes. `docker run --env-file` and `kubectl create --from-env-file` do not remove
/// them.
fn is_in_quotes(value: &str) -> bool {
    value.len() >= 2 && ['"', '\''].iter().any(|quote| value.starts_with(*quote) && value.ends_with(*quote))
}

/// The options that were given on the command line.
#[derive(Clone, Default)]
pub struct Options {
    given: Vec<(&'static str, &'static str, String)>,
    /// What is wrong with other options of the command. It is reported with the faults of the settings.
    pub faults: Vec<String>,
}

impl Options {
    /// Keeps the options that were given, each with its name and the variable that it overrides.
    pub fn new<const COUNT: usize>(all: [(&'static str, &'static str, &Option<String>); COUNT]) -> Self {
        let given = all.into_iter().filter_map(|(name, variable, value)| Some((name, variable, value.clone()?)));
        Self { given: given.collect(), faults: Vec::new() }
    }

    /// Returns the name and value of the option that overrides a variable, if it was given.
    pub(super) fn instead_of(&self, variable: &str) -> Option<(&'static str, &str)> {
        let (name, _, value) = self.given.iter().find(|(_, overridden, _)| *overridden == variable)?;
        Some((name, value))
    }
}

/// The settings that a command requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Required {
    /// No setting, because a request may bring what a sync requires.
    Serve,
    /// All settings that a sync requires.
    Sync,
    /// All settings that git requires, without the token for Windmill.
    Git,
}
