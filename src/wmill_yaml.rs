//! What a repository's own `wmill.yaml` may say, and the `wmill.yaml` that is written for one run.
//! Whoever can push to the repository writes its file, so only a list of harmless keys is heeded. This module knows
//! nothing of files on disk, and nothing of where settings come from.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    self, Deserialize, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// A larger `wmill.yaml` is not read. What `wmill init` writes has 6 KiB; the parser needs about 60 times the file.
const FILE_BYTES_MAX: usize = 256 * 1024;
/// Patterns in one list of the scope.
const PATTERNS_MAX: usize = 100;
/// Bytes of one pattern, and of any other string that is looked at.
const TEXT_BYTES_MAX: usize = 256;
/// wmill turns patterns into regular expressions that backtrack, and expands braces one by one: these bounds keep it
/// from being stalled by a pattern.
const PATTERN_STARS_MAX: usize = 10;
const PATTERN_STARS_PER_SEGMENT_MAX: usize = 4;
const PATTERN_BRACES_MAX: usize = 4;
/// Keys that a warning names, and the bytes that it quotes of each.
const NAMED_KEYS_MAX: usize = 20;
const NAMED_KEY_CHARS_MAX: usize = 40;
/// Characters of the parser's own words in a warning.
const REASON_CHARS_MAX: usize = 160;

/// The kinds of items that one sync takes out, all decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the key of wmill.yaml of the same name")]
pub struct Kinds {
    pub include_schedules: bool,
    pub include_triggers: bool,
    pub include_users: bool,
    pub include_groups: bool,
    pub include_settings: bool,
    pub include_key: bool,
    pub skip_secrets: bool,
    pub skip_variables: bool,
    pub skip_resources: bool,
    pub skip_resource_types: bool,
    pub skip_scripts: bool,
    pub skip_flows: bool,
    pub skip_apps: bool,
    pub skip_folders: bool,
    pub skip_workspace_dependencies: bool,
    pub skip_datatable_migrations: bool,
}

impl Default for Kinds {
    /// What is taken out where neither a setting nor the repository says otherwise.
    fn default() -> Self {
        Self {
            include_schedules: true,
            include_triggers: true,
            include_users: false,
            include_groups: true,
            include_settings: false,
            include_key: false,
            skip_secrets: false,
            skip_variables: false,
            skip_resources: false,
            skip_resource_types: false,
            skip_scripts: false,
            skip_flows: false,
            skip_apps: false,
            skip_folders: false,
            skip_workspace_dependencies: false,
            skip_datatable_migrations: false,
        }
    }
}

/// What the settings ask for, in the words of `WMILL_INCLUDE` and `WMILL_SKIP`.
///
/// `None`: the setting is not set, and the repository may decide. `Some`: it wins, for every kind of its sort.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of `schedules`, `triggers`, `users`, `groups`, `settings`, `key`.
    pub includes: Option<Vec<&'static str>>,
    /// Of `secrets`, `variables`, `resources`, `resource-types`, `scripts`, `flows`, `apps`, `folders`.
    pub skips: Option<Vec<&'static str>>,
}

/// What one run of wmill is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The kinds that are taken out.
    pub kinds: Kinds,
    /// Whether flows lie in `x__flow/` instead of `x.flow/`.
    pub non_dotted_paths: bool,
    /// Whether the repository's patterns narrow the scope.
    pub globs: bool,
    /// The `wmill.yaml` to write for this run.
    pub text: String,
    /// What is not heeded, and what is heeded but makes the backup smaller. Nothing in it can break a line.
    pub warnings: Vec<String>,
}

/// One kind: its key in `wmill.yaml`, its word in the settings (none has neither setting), and its place in [`Kinds`].
struct Kind {
    key: &'static str,
    setting: &'static str,
    field: fn(&mut Kinds) -> &mut bool,
}

const NO_SETTING: &str = "";

const KINDS: [Kind; 16] = [
    Kind { key: "skipVariables", setting: "variables", field: |kinds| &mut kinds.skip_variables },
    Kind { key: "skipResources", setting: "resources", field: |kinds| &mut kinds.skip_resources },
    Kind { key: "skipResourceTypes", setting: "resource-types", field: |kinds| &mut kinds.skip_resource_types },
    Kind { key: "skipSecrets", setting: "secrets", field: |kinds| &mut kinds.skip_secrets },
    Kind { key: "skipScripts", setting: "scripts", field: |kinds| &mut kinds.skip_scripts },
    Kind { key: "skipFlows", setting: "flows", field: |kinds| &mut kinds.skip_flows },
    Kind { key: "skipApps", setting: "apps", field: |kinds| &mut kinds.skip_apps },
    Kind { key: "skipFolders", setting: "folders", field: |kinds| &mut kinds.skip_folders },
    Kind {
        key: "skipWorkspaceDependencies",
        setting: NO_SETTING,
        field: |kinds| &mut kinds.skip_workspace_dependencies,
    },
    Kind { key: "skipDatatableMigrations", setting: NO_SETTING, field: |kinds| &mut kinds.skip_datatable_migrations },
    Kind { key: "includeSchedules", setting: "schedules", field: |kinds| &mut kinds.include_schedules },
    Kind { key: "includeTriggers", setting: "triggers", field: |kinds| &mut kinds.include_triggers },
    Kind { key: "includeUsers", setting: "users", field: |kinds| &mut kinds.include_users },
    Kind { key: "includeGroups", setting: "groups", field: |kinds| &mut kinds.include_groups },
    Kind { key: "includeSettings", setting: "settings", field: |kinds| &mut kinds.include_settings },
    Kind { key: INCLUDE_KEY, setting: "key", field: |kinds| &mut kinds.include_key },
];

/// The one kind that a repository never decides: key and ciphertext together are plain text.
const INCLUDE_KEY: &str = "includeKey";

impl Kind {
    fn is_include(&self) -> bool {
        self.key.starts_with("include")
    }

    /// What the settings say of this kind, where they say anything.
    fn asked(&self, asked: &Asked) -> Option<bool> {
        let words = if self.is_include() { &asked.includes } else { &asked.skips };
        words.as_ref().map(|words| words.contains(&self.setting))
    }
}

/// Keys that are never heeded; where their value is what wmill takes anyway, there is nothing to say about them.
const NEVER_HEEDED: [&str; 14] = [
    "codebases",
    "environments",
    "gitBranches",
    "git_branches",
    "json",
    "lint",
    "locksRequired",
    "message",
    "overrides",
    "plainSecrets",
    "promotion",
    "skipBranchValidation",
    "stateful",
    "workspaces",
];

const LAYOUT: [&str; 4] = ["defaultTs", "nonDottedPaths", "syncBehavior", "dedupeLockfiles"];
const SCOPE: [&str; 3] = ["includes", "extraIncludes", "excludes"];

/// wmill's `skipApps` leaves raw apps in, which are apps to everyone else. `**` alone passes over names with a dot.
const RAW_APPS: [&str; 2] = ["**/*{.,__}raw_app/**", "**/*{.,__}raw_app/**/.*"];

/// Decides what this run takes out: by the settings, then by the repository's own file as far as it may, then by the
/// defaults. It never fails: a file that cannot be read is not heeded, and a warning says so.
#[must_use]
pub fn read(repository_file: Option<&[u8]>, asked: &Asked) -> Plan {
    let mut draft = Draft::default();
    let mut warnings = Vec::new();
    match repository_file.map_or(Ok(Vec::new()), entries) {
        Ok(entries) => {
            for (key, shape) in entries {
                draft.take(key, shape, asked);
            }
        }
        Err(reason) => warnings.push(format!("`wmill.yaml` in the repository is not heeded at all: {reason}")),
    }
    for kind in &KINDS {
        if let Some(value) = kind.asked(asked) {
            *(kind.field)(&mut draft.kinds) = value;
        }
    }
    draft.settle_scope();
    if !draft.unheeded.is_empty() {
        warnings.push(format!("not heeded in the repository's `wmill.yaml`: {}", named(&draft.unheeded)));
    }
    if !draft.narrowing.is_empty() {
        warnings.push(format!(
            "the repository's `wmill.yaml` leaves a part of the workspace out of the backup: {}",
            named(&draft.narrowing)
        ));
    }
    Plan {
        kinds: draft.kinds,
        non_dotted_paths: draft.non_dotted_paths,
        globs: draft.scope.iter().any(|patterns| !patterns.is_empty()),
        text: draft.text(),
        warnings,
    }
}

/// What has been gathered so far.
#[derive(Default)]
struct Draft {
    kinds: Kinds,
    deno: bool,
    non_dotted_paths: bool,
    /// `None` is not `v0` in every version of wmill: absent stays absent.
    sync_behavior: Option<&'static str>,
    dedupe_lockfiles: bool,
    /// In the order of [`SCOPE`].
    scope: [Vec<String>; 3],
    unheeded: Vec<String>,
    narrowing: Vec<String>,
}

impl Draft {
    fn take(&mut self, key: String, shape: Shape, asked: &Asked) {
        let heeded = if let Some(kind) = KINDS.iter().find(|kind| kind.key == key) {
            self.take_kind(kind, &shape, asked)
        } else if LAYOUT.contains(&key.as_str()) {
            self.take_layout(&key, &shape)
        } else if let Some(index) = SCOPE.iter().position(|name| *name == key) {
            self.take_patterns(index, shape)
        } else {
            NEVER_HEEDED.contains(&key.as_str()) && matches!(shape, Shape::Empty | Shape::Bool(false))
        };
        if !heeded {
            self.unheeded.push(key);
        }
    }

    /// Whether there is nothing to tell: the value was heeded, or is what it would be without.
    fn take_kind(&mut self, kind: &Kind, shape: &Shape, asked: &Asked) -> bool {
        let Shape::Bool(value) = *shape else {
            return *shape == Shape::Empty;
        };
        if let Some(wins) = kind.asked(asked) {
            return wins == value;
        }
        if kind.key == INCLUDE_KEY {
            return !value;
        }
        let field = (kind.field)(&mut self.kinds);
        let takes_less = value != kind.is_include();
        if takes_less && *field != value {
            self.narrowing.push(kind.key.to_owned());
        }
        *field = value;
        true
    }

    fn take_layout(&mut self, key: &str, shape: &Shape) -> bool {
        match (key, shape) {
            (_, Shape::Empty) => {}
            ("nonDottedPaths", Shape::Bool(value)) => self.non_dotted_paths = *value,
            ("dedupeLockfiles", Shape::Bool(value)) => self.dedupe_lockfiles = *value,
            ("defaultTs", Shape::Text(text)) if text == "bun" => self.deno = false,
            ("defaultTs", Shape::Text(text)) if text == "deno" => self.deno = true,
            // wmill exits on a version above its own, and takes everything else for v0.
            ("syncBehavior", Shape::Text(text)) if text == "v0" => self.sync_behavior = Some("v0"),
            ("syncBehavior", Shape::Text(text)) if text == "v1" => self.sync_behavior = Some("v1"),
            _ => return false,
        }
        true
    }

    /// The whole list or nothing of it: half of the includes would leave out what the other half took in.
    fn take_patterns(&mut self, index: usize, shape: Shape) -> bool {
        match shape {
            Shape::Empty => true,
            Shape::List(patterns) if patterns.iter().all(|pattern| is_pattern(pattern)) => {
                self.scope[index] = patterns;
                true
            }
            _ => false,
        }
    }

    /// Forgets patterns that restrict nothing, and names those that do.
    ///
    /// wmill 1.819.0 looks at `extraIncludes` only beside other patterns, and then as a further condition.
    fn settle_scope(&mut self) {
        let [includes, extra_includes, excludes] = &self.scope;
        let all = includes.iter().any(|pattern| pattern == "**") || includes.is_empty();
        let looks_at_extra = !includes.is_empty() || !excludes.is_empty();
        let restricting = [!all, looks_at_extra && !extra_includes.is_empty(), !excludes.is_empty()];
        if restricting.contains(&true) {
            let names = SCOPE.iter().zip(restricting).filter(|(_, restricts)| *restricts);
            self.narrowing.splice(0..0, names.map(|(name, _)| (*name).to_owned()));
        } else {
            self.scope = Default::default();
        }
    }

    /// Every kind is written, so that nothing is left to defaults, which differ between wmill's versions.
    fn text(mut self) -> String {
        let mut text = String::from("# Written by windmill-git-sync for one run.\n");
        let mut line = |key: &str, value: &dyn fmt::Display| text.push_str(&format!("{key}: {value}\n"));
        line("defaultTs", &if self.deno { "\"deno\"" } else { "\"bun\"" });
        line("nonDottedPaths", &self.non_dotted_paths);
        line("dedupeLockfiles", &self.dedupe_lockfiles);
        if let Some(version) = self.sync_behavior {
            line("syncBehavior", &quoted(version));
        }
        if self.kinds.skip_apps {
            self.scope[2].extend(RAW_APPS.map(str::to_owned));
        }
        for (key, patterns) in SCOPE.iter().zip(&self.scope) {
            if !patterns.is_empty() {
                let patterns: Vec<String> = patterns.iter().map(|pattern| quoted(pattern)).collect();
                line(key, &format_args!("[{}]", patterns.join(", ")));
            }
        }
        for kind in &KINDS {
            line(kind.key, (kind.field)(&mut self.kinds));
        }
        line("plainSecrets", &false);
        line("stateful", &false);
        line("codebases", &"[]");
        text
    }
}

/// Whether wmill can be handed this pattern.
fn is_pattern(pattern: &str) -> bool {
    let count = |text: &str, what: char| text.chars().filter(|char| *char == what).count();
    !pattern.is_empty()
        && !pattern.contains(char::is_control)
        && !pattern.contains("..")
        && !pattern.contains('(')
        && count(pattern, '{') <= PATTERN_BRACES_MAX
        && count(pattern, '*') <= PATTERN_STARS_MAX
        && pattern.split('/').all(|segment| count(segment, '*') <= PATTERN_STARS_PER_SEGMENT_MAX)
}

/// `text` as a double-quoted scalar, which is the same in YAML and JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            // Line breaks of YAML 1.1, the byte order mark, and what no scalar may hold as it is.
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => quoted.push_str(&escaped(char)),
            _ if char.is_control() => quoted.push_str(&escaped(char)),
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

fn escaped(char: char) -> String {
    format!("\\u{:04x}", u32::from(char))
}

/// The keys for a warning: escaped, shortened, and not too many.
fn named(keys: &[String]) -> String {
    let shown: Vec<String> = keys.iter().take(NAMED_KEYS_MAX).map(|key| shown(key, NAMED_KEY_CHARS_MAX)).collect();
    match keys.len().saturating_sub(NAMED_KEYS_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn shown(text: &str, chars_max: usize) -> String {
    let mut shown: String = text.chars().take(chars_max).flat_map(char::escape_debug).collect();
    if text.chars().nth(chars_max).is_some() {
        shown.push('…');
    }
    shown
}

/// The top level of the file in its order, or why nothing of it is heeded.
fn entries(file: &[u8]) -> Result<Vec<(String, Shape)>, String> {
    if file.len() > FILE_BYTES_MAX {
        return Err(format!("it has {} bytes, and {FILE_BYTES_MAX} are read at most", file.len()));
    }
    let text = str::from_utf8(file).map_err(|_| "it is not UTF-8".to_owned())?;
    match yaml_serde::from_str(text) {
        Ok(Top(entries)) => Ok(entries),
        Err(error) => Err(shown(&error.to_string(), REASON_CHARS_MAX)),
    }
}

/// A value, as far as this module looks into it.
///
/// Nothing deeper than a list of strings is built, and what an alias stands for is walked at most once for each known
/// key: aliases cannot make a small file large.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    /// Null, `[]` or `{}`.
    Empty,
    Bool(bool),
    /// Of at most [`TEXT_BYTES_MAX`] bytes.
    Text(String),
    /// Of at most [`PATTERNS_MAX`] texts.
    List(Vec<String>),
    Other,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Empty)
    }

    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(if text.len() <= TEXT_BYTES_MAX { Shape::Text(text.to_owned()) } else { Shape::Other })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut texts = Vec::new();
        while let Some(item) = items.next_element()? {
            match item {
                Shape::Text(text) if texts.len() < PATTERNS_MAX => texts.push(text),
                _ => {
                    while items.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(Shape::Other);
                }
            }
        }
        Ok(if texts.is_empty() { Shape::Empty } else { Shape::List(texts) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::Empty;
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            shape = Shape::Other;
        }
        Ok(shape)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Shape, A::Error> {
        let (IgnoredAny, value) = tagged.variant()?;
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Shape::Other)
    }
}

/// The top-level mapping. Only known keys' values are looked at.
struct Top(Vec<(String, Shape)>);

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping")
    }

    /// A file with nothing but comments.
    fn visit_none<E>(self) -> Result<Top, E> {
        Ok(Top(Vec::new()))
    }

    fn visit_unit<E>(self) -> Result<Top, E> {
        Ok(Top(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                // Which of them counts is another question to each parser.
                return Err(de::Error::custom(format_args!("the key `{}` is there twice", shown(&key, 40))));
            }
            let shape = if is_known(&key) {
                map.next_value()?
            } else {
                map.next_value::<IgnoredAny>()?;
                Shape::Other
            };
            entries.push((key, shape));
        }
        Ok(Top(entries))
    }
}

fn is_known(key: &str) -> bool {
    KINDS.iter().any(|kind| kind.key == key) || [&LAYOUT[..], &SCOPE, &NEVER_HEEDED].concat().contains(&key)
}
