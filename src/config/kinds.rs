//! Settings that are lists of words: kinds of items, and occasions of notifications.

use crate::model::names;

/// Defines the enum of a list setting, with all of its values and their words.
macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($kind:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $kind,)*
        }

        impl $name {
            /// All values, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Returns its word in the setting.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// Parses a list of words, separated by commas; `none` is the empty list.
            ///
            /// # Errors
            ///
            /// Fails if a word is unknown or comes twice, or if `none` is not alone. If a word is unknown, the message
            /// names the permitted ones.
            pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
                parse_words(text, Self::ALL, Self::as_str)
            }
        }
    };
}

kinds! {
    /// Kinds that are in the backup only if the settings include them.
    IncludeKind {
        Schedules = "schedules",
        Triggers = "triggers",
        Users = "users",
        Groups = "groups",
        Settings = "settings",
        Key = "key",
    }
}

kinds! {
    /// Kinds that can be left out of the backup.
    SkipKind {
        Secrets = "secrets",
        Variables = "variables",
        Resources = "resources",
        ResourceTypes = "resource-types",
        Scripts = "scripts",
        Flows = "flows",
        Apps = "apps",
        Folders = "folders",
    }
}

kinds! {
    /// When a notification is sent.
    Occasion {
        Failure = "failure",
        Recovery = "recovery",
        Change = "change",
        Always = "always",
    }
}

/// The kinds that are included if neither `WMILL_INCLUDE` nor the repository's `wmill.yaml` says otherwise.
pub const KINDS_INCLUDED_DEFAULT: &[IncludeKind] =
    &[IncludeKind::Schedules, IncludeKind::Triggers, IncludeKind::Groups];

fn parse_words<T: Copy + PartialEq>(
    text: &str,
    permitted: &[T],
    word_of: fn(T) -> &'static str,
) -> Result<Vec<T>, String> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let mut kinds = Vec::new();
    for word in text.split(',').map(str::trim) {
        match permitted.iter().find(|kind| word_of(**kind) == word) {
            Some(kind) if kinds.contains(kind) => return Err(format!("{word} comes twice")),
            Some(kind) => kinds.push(*kind),
            None if word == "none" => return Err("none does not go with other words".to_owned()),
            None => {
                let permitted: Vec<_> = permitted.iter().map(|kind| word_of(*kind)).collect();
                let (word, permitted) = (names::quoted(word), permitted.join(", "));
                return Err(format!("{word} is unknown; permitted are {permitted}, or none alone"));
            }
        }
    }
    Ok(kinds)
}
