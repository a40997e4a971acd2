//! The repository's `wmill.yaml`: which keys are used, and the text of the file that a run writes.

use std::collections::{BTreeMap, BTreeSet};

use miniserde::json;

use crate::util::{Node, yaml};
use crate::windmill::{ItemId, Scope, item_path};

/// The name of the repository's file and of the file that a run writes.
pub const WMILL_YAML: &str = "wmill.yaml";
/// A larger `wmill.yaml` is not read: the parser holds an event for every two bytes. `wmill init` writes 6 KiB.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// The most patterns of one list of the scope.
const PATTERNS_MAX: usize = 100;
/// The longest pattern.
const PATTERN_BYTES_MAX: usize = 256;
/// wmill turns patterns into regular expressions that backtrack, and expands braces one by one. With these limits, a
/// pattern cannot stall it.
const PATTERN_STARS_MAX: usize = 10;
const PATTERN_STARS_PER_SEGMENT_MAX: usize = 4;
const PATTERN_BRACES_MAX: usize = 4;
/// The most characters of the names of keys in a warning.
const NAMED_CHARS_MAX: usize = 800;

/// The kinds, by their words, and whether one sync exports the items of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kinds(BTreeMap<&'static str, bool>);

impl Kinds {
    /// Returns the kinds that are exported if neither a setting nor the repository says otherwise.
    pub fn usual() -> Self {
        let is_usual = |key: &str, word: &str| !is_include(key) || ["schedules", "triggers", "groups"].contains(&word);
        Self(KINDS.map(|(key, word)| (word, is_usual(key, word))).into())
    }

    /// Whether the kind with this word is exported.
    pub fn has(&self, word: &str) -> bool {
        debug_assert!(self.0.contains_key(word), "{word}");
        self.0.get(word) == Some(&true)
    }

    /// Exports the kind, or leaves it out.
    pub fn set(&mut self, word: &'static str, is_exported: bool) {
        self.0.insert(word, is_exported);
    }
}

/// The kinds in the settings, in the words of `WMILL_INCLUDE` and `WMILL_SKIP`.
///
/// `None`: the setting is not set, and the repository may decide. `Some`: the setting decides, for all kinds that are
/// included or for all that are skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KindSettings {
    /// Any of `schedules`, `triggers`, `users`, `groups`, `settings`, `key`.
    pub includes: Option<Vec<&'static str>>,
    /// Any of `secrets`, `variables`, `resources`, `resource-types`, `scripts`, `flows`, `apps`, `folders`.
    pub skips: Option<Vec<&'static str>>,
}

impl KindSettings {
    /// Returns whether a kind is exported, if the settings decide that.
    fn decide(&self, key: &str, word: &str) -> Option<bool> {
        let words = if is_include(key) { &self.includes } else { &self.skips };
        words.as_ref().map(|words| words.contains(&word) == is_include(key))
    }
}

/// The task of one run of wmill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The kinds that are exported.
    pub kinds: Kinds,
    /// Whether flows lie in `x__flow/` instead of `x.flow/`.
    pub non_dotted_paths: bool,
    /// Whether items share lock files.
    pub dedupes_lockfiles: bool,
    /// The language of scripts with the ending `.ts`.
    default_ts: &'static str,
    /// An absent key does not mean `v0` in every version of wmill, so it stays absent.
    sync_behavior: Option<&'static str>,
    /// The patterns of the repository.
    pub scope: Scope,
    /// The query with which wmill requests the export in this run, without the type of the archive.
    pub query: String,
    /// The `wmill.yaml` to write for this run.
    pub text: String,
    /// This `wmill.yaml` without the repository's patterns, for a pull into an empty folder.
    pub text_without_patterns: String,
    /// The warnings about ignored keys, and about used keys that make the backup smaller. They have no line breaks.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether the sync skips an item, by its kind or by a pattern.
    pub fn keeps_out(&self, item: &ItemId) -> bool {
        !item_path::covers(item, &self.kinds) || self.scope.keeps_out(item, self.non_dotted_paths)
    }

    /// Takes a field of the repository's file. Returns whether no warning is needed: its value is used, or it makes no
    /// difference.
    fn take(&mut self, key: &str, node: &Node, asked: &KindSettings, scope: &mut [Vec<String>; 3]) -> bool {
        match (key, node) {
            (_, node) if node.is_empty() => true,
            ("nonDottedPaths", Node::Bool(value)) => set(&mut self.non_dotted_paths, Some(*value)),
            ("dedupeLockfiles", Node::Bool(value)) => set(&mut self.dedupes_lockfiles, Some(*value)),
            ("defaultTs", Node::Text(text)) => set(&mut self.default_ts, one_of(["bun", "deno"], text)),
            // wmill exits if the version is above its own, and treats every other value as v0.
            ("syncBehavior", Node::Text(text)) => set(&mut self.sync_behavior, one_of(["v0", "v1"], text).map(Some)),
            (key, Node::List(list)) => {
                let of_key = SCOPE.iter().position(|name| *name == key);
                of_key.is_some_and(|index| set(&mut scope[index], patterns(list)))
            }
            (key, Node::Bool(value)) => match KINDS.into_iter().find(|(name, _)| *name == key) {
                Some((_, word)) => {
                    let is_exported = *value == is_include(key);
                    if key != INCLUDE_KEY && asked.decide(key, word).is_none() {
                        self.kinds.set(word, is_exported);
                    }
                    self.kinds.has(word) == is_exported
                }
                None => !value && NEVER_HEEDED.contains(&key),
            },
            _ => false,
        }
    }

    /// Adds a warning about keys, if there are any.
    fn warn(&mut self, what: &str, keys: &str) {
        if !keys.is_empty() {
            self.warnings.push(format!("{what}: {}", yaml::escaped_start(keys, NAMED_CHARS_MAX)));
        }
    }
}

/// The key of each kind in `wmill.yaml`, and its word. It is the one of the settings, except for the two kinds that no
/// setting leaves out.
const KINDS: [(&str, &str); 16] = [
    ("skipVariables", "variables"),
    ("skipResources", "resources"),
    ("skipResourceTypes", "resource-types"),
    ("skipSecrets", "secrets"),
    ("skipScripts", "scripts"),
    ("skipFlows", "flows"),
    ("skipApps", "apps"),
    ("skipFolders", "folders"),
    ("skipWorkspaceDependencies", "workspace-dependencies"),
    ("skipDatatableMigrations", "datatable-migrations"),
    ("includeSchedules", "schedules"),
    ("includeTriggers", "triggers"),
    ("includeUsers", "users"),
    ("includeGroups", "groups"),
    ("includeSettings", "settings"),
    (INCLUDE_KEY, "key"),
];

/// The key of the only kind that a repository never decides, because the encryption key decrypts the ciphertext beside
/// it.
const INCLUDE_KEY: &str = "includeKey";

fn is_include(key: &str) -> bool {
    key.starts_with("include")
}

/// Keys that are always ignored. There is no warning if their value is wmill's default.
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

/// The warning about `syncBehavior: v1`, which `wmill init` writes.
const WITHOUT_RUN_AS: &str = "the repository's `wmill.yaml` sets `syncBehavior: v1`, so on behalf of whom flows, scripts, \
                              schedules and triggers run is not in the backup";

/// The patterns of raw apps. wmill's `skipApps` does not skip them, although they count as apps everywhere else. `**`
/// alone does not match names that begin with a dot.
const RAW_APPS: [&str; 2] = ["**/*{.,__}raw_app/**", "**/*{.,__}raw_app/**/.*"];

/// Decides what this run exports. The settings come first, then the repository's own file as far as it may decide, then
/// the defaults. It never fails: a file that cannot be read is ignored, with a warning.
pub fn read(repository_file: Option<&[u8]>, asked: &KindSettings) -> Plan {
    let mut plan = Plan { kinds: Kinds::usual(), default_ts: "bun", ..Plan::default() };
    for (key, word) in KINDS {
        if let Some(is_exported) = asked.decide(key, word) {
            plan.kinds.set(word, is_exported);
        }
    }
    // The patterns, in the order of `SCOPE`.
    let mut scope = <[Vec<String>; 3]>::default();
    let mut ignored = Vec::new();
    let fields = repository_file.map_or(Ok(Vec::new()), entries).unwrap_or_else(|reason| {
        plan.warnings.push(format!("`wmill.yaml` in the repository is ignored: {reason}"));
        Vec::new()
    });
    for (key, node) in fields {
        if !plan.take(&key, &node, asked, &mut scope) {
            ignored.push(key);
        }
    }
    let mut narrowing = settle_scope(&mut scope);
    let usual = Kinds::usual();
    let is_narrowed =
        |(key, word): &(&str, &str)| usual.has(word) && !plan.kinds.has(word) && asked.decide(key, word).is_none();
    narrowing.extend(KINDS.into_iter().filter(is_narrowed).map(|(key, _)| key));
    plan.warn("ignored in the repository's `wmill.yaml`", &ignored.join(", "));
    if plan.sync_behavior == Some("v1") {
        plan.warnings.push(WITHOUT_RUN_AS.to_owned());
    }
    let what = "the repository's `wmill.yaml` leaves a part of the workspace out of the backup";
    plan.warn(what, &narrowing.join(", "));
    plan.query = query(&plan);
    plan.text = text(&plan, &scope);
    plan.text_without_patterns = text(&plan, &Default::default());
    plan.scope = Scope::new(&scope);
    plan
}

/// Sets a value, if there is one. Returns whether there is one.
fn set<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

fn one_of(known: [&'static str; 2], text: &str) -> Option<&'static str> {
    known.into_iter().find(|known| *known == text)
}

/// Returns the whole list or nothing: with only some of the includes, items of the others would be missing.
fn patterns(list: &[Node]) -> Option<Vec<String>> {
    let pattern = |node: &Node| match node {
        Node::Text(text) if is_pattern(text) => Some(text.clone()),
        _ => None,
    };
    if list.len() <= PATTERNS_MAX { list.iter().map(pattern).collect() } else { None }
}

/// Drops patterns that restrict nothing, and returns the keys of those that do.
///
/// wmill 1.819.0 uses `extraIncludes` only together with other patterns, and then as a further condition.
fn settle_scope(scope: &mut [Vec<String>; 3]) -> Vec<&'static str> {
    let [includes, extra_includes, excludes] = &*scope;
    let all = includes.iter().any(|pattern| pattern == "**") || includes.is_empty();
    let looks_at_extra = !includes.is_empty() || !excludes.is_empty();
    let restricting = [!all, looks_at_extra && !extra_includes.is_empty(), !excludes.is_empty()];
    if !restricting.contains(&true) {
        *scope = Default::default();
    }
    SCOPE.iter().zip(restricting).filter(|(_, restricts)| *restricts).map(|(name, _)| *name).collect()
}

/// Returns the query of wmill 1.819.0. wmill itself leaves out scripts, flows, apps and folders.
fn query(plan: &Plan) -> String {
    let mut query = String::from("plain_secret=false");
    for (key, word) in KINDS {
        let is_exported = plan.kinds.has(word);
        query += &match key {
            "skipScripts" | "skipFlows" | "skipApps" | "skipFolders" => continue,
            "skipWorkspaceDependencies" => format!("&include_workspace_dependencies={is_exported}"),
            key => format!("&{}={}", in_query(key), is_exported == is_include(key)),
        };
    }
    let (default_ts, behavior) = (plan.default_ts, plan.sync_behavior.unwrap_or("v0"));
    query
        + &format!(
            "&default_ts={default_ts}&settings_version=v2&preserve_extra_perms=true&sync_behavior_version={behavior}"
        )
}

/// Writes every kind, so that nothing depends on the defaults, which differ between wmill's versions.
fn text(plan: &Plan, scope: &[Vec<String>; 3]) -> String {
    let Plan { default_ts, non_dotted_paths, dedupes_lockfiles, .. } = plan;
    let mut text = format!(
        "# Written by windmill-git-sync for one run.\ndefaultTs: \"{default_ts}\"\nnonDottedPaths: {non_dotted_paths}\n\
         dedupeLockfiles: {dedupes_lockfiles}\n"
    );
    if let Some(version) = plan.sync_behavior {
        text += &format!("syncBehavior: \"{version}\"\n");
    }
    let mut scope = scope.clone();
    if !plan.kinds.has("apps") {
        scope[2].extend(RAW_APPS.map(str::to_owned));
    }
    for (key, patterns) in SCOPE.iter().zip(&scope).filter(|(_, patterns)| !patterns.is_empty()) {
        // JSON is valid YAML 1.2, which wmill reads.
        text += &format!("{key}: {}\n", json::to_string(patterns));
    }
    for (key, word) in KINDS {
        text += &format!("{key}: {}\n", plan.kinds.has(word) == is_include(key));
    }
    text + "plainSecrets: false\nstateful: false\ncodebases: []\n"
}

/// Returns the query parameter of a kind: `skip_resource_types` for `skipResourceTypes`.
fn in_query(key: &str) -> String {
    let of = |char: char| if char.is_uppercase() { format!("_{}", char.to_lowercase()) } else { char.to_string() };
    key.chars().map(of).collect()
}

/// Whether wmill may get this pattern. wmill only compares it with paths, so it cannot lead elsewhere. Two dots are
/// always refused: within braces they are a range, of any length.
fn is_pattern(pattern: &str) -> bool {
    let count = |text: &str, what: char| text.chars().filter(|char| *char == what).count();
    !pattern.is_empty()
        && pattern.len() <= PATTERN_BYTES_MAX
        && !pattern.contains(char::is_control)
        && !pattern.contains("..")
        && !pattern.contains('(')
        && count(pattern, '{') <= PATTERN_BRACES_MAX
        && count(pattern, '*') <= PATTERN_STARS_MAX
        && pattern.split('/').all(|segment| count(segment, '*') <= PATTERN_STARS_PER_SEGMENT_MAX)
}

/// Returns the top level of the repository's file in its order, or why the whole file is ignored.
fn entries(file: &[u8]) -> Result<Vec<(String, Node)>, String> {
    yaml::fields(file, FILE_BYTES_MAX, is_known)
}

fn is_known(key: &str) -> bool {
    KINDS.iter().any(|(name, _)| *name == key)
        || [&LAYOUT[..], &SCOPE, &NEVER_HEEDED].iter().any(|names| names.contains(&key))
}

/// Returns the lines of a `wmill.yaml` that declare the resources and variables in these files as items that only this
/// workspace has.
pub fn own_items(files: &BTreeSet<String>) -> String {
    // wmill treats these paths as patterns.
    let is_plain = |char: char| char.is_alphanumeric() || "_-/.@".contains(char);
    let of = |ending: &str| {
        let files = files.iter().filter(|file| file.ends_with(ending));
        let patterns = files.map(|file| json::to_string(&file.replace(|char| !is_plain(char), "?")));
        patterns.collect::<Vec<_>>().join(", ")
    };
    let (resources, variables) = (of(".resource.yaml"), of(".variable.yaml"));
    if resources.is_empty() && variables.is_empty() {
        return String::new();
    }
    format!("workspaces:\n  commonSpecificItems:\n    resources: [{resources}]\n    variables: [{variables}]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: KindSettings = KindSettings { includes: None, skips: None };

    /// Reads `file` without settings. `lines` are the lines of the written file that are not written without a file.
    #[track_caller]
    fn check(file: &str, lines: &[&str], warnings: &[&str]) {
        check_asked(file, &NOTHING, lines, warnings);
    }

    #[track_caller]
    fn check_asked(file: &str, asked: &KindSettings, lines: &[&str], warnings: &[&str]) {
        let none = read(None, &NOTHING).text;
        let plan = read(Some(file.as_bytes()), asked);
        let usual: Vec<&str> = none.lines().collect();
        let unusual: Vec<&str> = plan.text.lines().filter(|line| !usual.contains(line)).collect();
        assert_eq!(unusual, lines);
        assert_eq!(plan.warnings, warnings);
        // Each written line is read as one key.
        assert_eq!(entries(plan.text.as_bytes()).unwrap().len(), plan.text.lines().count() - 1);
    }

    const ALL_REFUSED: &str = "`wmill.yaml` in the repository is ignored: ";

    #[track_caller]
    fn check_unreadable(file: &[u8], reason: &str) {
        let plan = read(Some(file), &NOTHING);
        assert_eq!(Plan { warnings: Vec::new(), ..plan.clone() }, read(None, &NOTHING));
        let [warning] = &plan.warnings[..] else { panic!("{:?}", plan.warnings) };
        assert!(warning.starts_with(ALL_REFUSED) && warning.contains(reason), "{warning}");
    }

    #[track_caller]
    fn ignored(keys: &str) -> String {
        format!("ignored in the repository's `wmill.yaml`: {keys}")
    }

    #[track_caller]
    fn narrowing(keys: &str) -> String {
        format!("the repository's `wmill.yaml` leaves a part of the workspace out of the backup: {keys}")
    }

    #[test]
    fn without_a_file_every_key_is_written_with_our_defaults() {
        let plan = read(None, &NOTHING);
        assert_eq!(
            plan.text,
            "# Written by windmill-git-sync for one run.\ndefaultTs: \"bun\"\nnonDottedPaths: false\n\
             dedupeLockfiles: false\nskipVariables: false\nskipResources: false\nskipResourceTypes: false\n\
             skipSecrets: false\nskipScripts: false\nskipFlows: false\nskipApps: false\nskipFolders: false\n\
             skipWorkspaceDependencies: false\nskipDatatableMigrations: false\nincludeSchedules: true\n\
             includeTriggers: true\nincludeUsers: false\nincludeGroups: true\nincludeSettings: false\n\
             includeKey: false\nplainSecrets: false\nstateful: false\ncodebases: []\n"
        );
        assert_eq!((&plan.kinds, plan.non_dotted_paths, plan.scope.is_all()), (&Kinds::usual(), false, true));
        assert!(plan.warnings.is_empty());
        for empty in ["", "\n", "# only a comment\n", "---\n", "null\n", "{}\n", "\u{feff}# with a mark\n"] {
            assert_eq!(read(Some(empty.as_bytes()), &NOTHING), plan, "{empty:?}");
        }
    }

    #[test]
    fn the_layout_is_carried_over() {
        check("defaultTs: deno", &["defaultTs: \"deno\""], &[]);
        check("defaultTs: node", &[], &[&ignored("defaultTs")]);
        check("nonDottedPaths: true", &["nonDottedPaths: true"], &[]);
        check("nonDottedPaths: 'true'", &[], &[&ignored("nonDottedPaths")]);
        check("nonDottedPaths: yes", &[], &[&ignored("nonDottedPaths")]);
        check("dedupeLockfiles: true", &["dedupeLockfiles: true"], &[]);
        check("dedupeLockfiles: 1", &[], &[&ignored("dedupeLockfiles")]);
        check("syncBehavior: v1", &["syncBehavior: \"v1\""], &[WITHOUT_RUN_AS]);
        check("\u{feff}syncBehavior: v1", &["syncBehavior: \"v1\""], &[WITHOUT_RUN_AS]);
        check("syncBehavior: v0", &["syncBehavior: \"v0\""], &[]);
        check("syncBehavior: v2", &[], &[&ignored("syncBehavior")]);
        check("syncBehavior: 1", &[], &[&ignored("syncBehavior")]);
        check("syncBehavior:", &[], &[]);
    }

    #[test]
    fn patterns_that_restrict_are_carried_over_with_a_warning() {
        check("includes: ['f/**']", &["includes: [\"f/**\"]"], &[&narrowing("includes")]);
        check("includes: ['f/**', '**']", &[], &[]);
        check("includes: []", &[], &[]);
        check("includes: f/**", &[], &[&ignored("includes")]);
        check("excludes: [f/tmp/**]", &["excludes: [\"f/tmp/**\"]"], &[&narrowing("excludes")]);
        // For wmill, an empty list of includes with excludes matches no file.
        check("includes: []\nexcludes: [a]", &["excludes: [\"a\"]"], &[&narrowing("excludes")]);
        // wmill does not use `extraIncludes` alone.
        check("extraIncludes: ['u/**']", &[], &[]);
        check(
            "includes: ['**']\nextraIncludes: ['u/**']",
            &["includes: [\"**\"]", "extraIncludes: [\"u/**\"]"],
            &[&narrowing("extraIncludes")],
        );
        assert!(!read(Some(b"includes: ['f/**']"), &NOTHING).scope.is_all());
        assert!(read(Some(b"includes: ['**']"), &NOTHING).scope.is_all());
    }

    #[test]
    fn a_list_with_one_bad_pattern_is_ignored() {
        check("includes: ['f/{a,b}/**']", &["includes: [\"f/{a,b}/**\"]"], &[&narrowing("includes")]);
        for bad in ["1", "''", "'f/{1..99999999}'", "'+(a|b)'", "'a*a*a*a*a*a'", "[a]", "{a: b}", "~", "\"a\\n\""] {
            check(&format!("includes: ['f/**', {bad}]"), &[], &[&ignored("includes")]);
        }
        let fits = "a".repeat(PATTERN_BYTES_MAX);
        check(&format!("excludes: [{fits}]"), &[&format!("excludes: [\"{fits}\"]")], &[&narrowing("excludes")]);
        check(&format!("excludes: [{fits}a]"), &[], &[&ignored("excludes")]);
        let many = vec!["a"; PATTERNS_MAX];
        assert!(!read(Some(format!("excludes: [{}]", many.join(",")).as_bytes()), &NOTHING).scope.is_all());
        check(&format!("excludes: [{},a]", many.join(",")), &[], &[&ignored("excludes")]);
    }

    #[test]
    fn a_pattern_cannot_break_out_of_its_quotes() {
        let line = "excludes: [\"a\\\"\\\\]: #\u{2028}é, {x}\"]";
        check("excludes: [\"a\\\"\\\\]: #\\u2028é, {x}\"]", &[line], &[&narrowing("excludes")]);
        let text = read(Some(line.as_bytes()), &NOTHING).text;
        let Some((_, Node::List(patterns))) =
            entries(text.as_bytes()).unwrap().into_iter().find(|(key, _)| key == "excludes")
        else {
            panic!("{text}")
        };
        assert_eq!(patterns, [Node::Text("a\"\\]: #\u{2028}é, {x}".to_owned())]);
    }

    #[test]
    fn the_repository_decides_kinds_that_no_setting_decides() {
        check("skipSecrets: true", &["skipSecrets: true"], &[&narrowing("skipSecrets")]);
        check("skipSecrets: false", &[], &[]);
        check("skipSecrets: 'true'", &[], &[&ignored("skipSecrets")]);
        check("includeSchedules: false", &["includeSchedules: false"], &[&narrowing("includeSchedules")]);
        check("includeUsers: true\nincludeSettings: false", &["includeUsers: true"], &[]);
        check(
            "skipDatatableMigrations: true\nincludes: [a]",
            &["includes: [\"a\"]", "skipDatatableMigrations: true"],
            &[&narrowing("includes, skipDatatableMigrations")],
        );
    }

    #[test]
    fn settings_override_the_repository() {
        let asked = KindSettings { includes: Some(vec!["users", "key"]), skips: Some(vec!["resource-types"]) };
        let lines = [
            "skipResourceTypes: true",
            "includeSchedules: false",
            "includeTriggers: false",
            "includeUsers: true",
            "includeGroups: false",
            "includeKey: true",
        ];
        check_asked("", &asked, &lines, &[]);
        check_asked("includeUsers: true\nskipScripts: false", &asked, &lines, &[]);
        let overruled = ignored("includeGroups, skipScripts, skipWorkspaceDependencies");
        let file = "includeGroups: true\nskipScripts: true\nskipWorkspaceDependencies: true";
        check_asked(file, &asked, &lines, &[&overruled]);
        // If only one of the two is set, the repository decides the kinds of the other.
        let asked = KindSettings { includes: None, skips: Some(Vec::new()) };
        check_asked("includeUsers: true\nskipFlows: true", &asked, &["includeUsers: true"], &[&ignored("skipFlows")]);
    }

    #[test]
    fn skipped_apps_include_raw_apps() {
        let raw = "excludes: [\"**/*{.,__}raw_app/**\",\"**/*{.,__}raw_app/**/.*\"]";
        let asked = KindSettings { includes: None, skips: Some(vec!["apps"]) };
        check_asked("", &asked, &[raw, "skipApps: true"], &[]);
        assert!(read(None, &asked).scope.is_all());
    }

    #[test]
    fn the_repository_cannot_include_the_key_or_plain_secrets() {
        check("includeKey: true\nplainSecrets: true", &[], &[&ignored("includeKey, plainSecrets")]);
        check("includeKey: false\nplainSecrets: false", &[], &[]);
        let hidden = "workspaces: {shop: {overrides: {plainSecrets: true}}}\ngitBranches: {main: {}}\nstateful: true\n\
                      codebases: [{customBundler: ./x}]\nworkspaceId: other\n<<: {includeKey: true}";
        let keys = "workspaces, gitBranches, stateful, codebases, workspaceId, <<";
        check(hidden, &[], &[&ignored(keys)]);
        check("workspaces: {}\noverrides: {}\ncodebases: []\nstateful: false\nenvironments:", &[], &[]);
    }

    #[test]
    fn the_file_of_wmill_init_gives_warnings_only_about_what_it_leaves_out() {
        let file = "defaultTs: bun\nincludes:\n  - \"f/**\"\nexcludes: []\nskipVariables: false\n\
                    skipResources: false\nskipResourceTypes: false\nskipSecrets: true\nskipScripts: false\n\
                    skipFlows: false\nskipApps: false\nskipFolders: false\nskipWorkspaceDependencies: false\n\
                    skipDatatableMigrations: false\nnonDottedPaths: true\nsyncBehavior: v1\ncodebases: []\n\
                    workspaces: {}\n";
        check(
            file,
            &["nonDottedPaths: true", "syncBehavior: \"v1\"", "includes: [\"f/**\"]", "skipSecrets: true"],
            &[WITHOUT_RUN_AS, &narrowing("includes, skipSecrets")],
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_ignored() {
        check_unreadable(b"nonDottedPaths: true\n\xff: 1", "not UTF-8");
        check_unreadable(b"nonDottedPaths: true\n  x: [", "line 2");
        check_unreadable(b"- nonDottedPaths: true", "sequence");
        check_unreadable(b"hunter2", "a text and not a mapping");
        check_unreadable(b"nonDottedPaths: true\nnonDottedPaths: false", "`nonDottedPaths` is there twice");
        check_unreadable(b"nonDottedPaths: true\nx: 1\n'x': 2", "`x` is there twice");
        check_unreadable(b"nonDottedPaths: true\n---\nx: 1", "more than one document");
        check_unreadable(b"nonDottedPaths: true\n[a, b]: 1", "");
        check_unreadable(b"nonDottedPaths: true\nx: *nowhere", "unknown anchor");
        let long = format!("nonDottedPaths: true\n#{}", " ".repeat(FILE_BYTES_MAX - 22));
        assert!(read(Some(long.as_bytes()), &NOTHING).non_dotted_paths);
        check_unreadable(format!("{long} ").as_bytes(), "262145 bytes");
    }

    #[test]
    fn aliases_do_not_make_a_small_file_large() {
        check("x: &a [f/**]\nincludes: *a", &["includes: [\"f/**\"]"], &[&ignored("x"), &narrowing("includes")]);
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..200 {
            let alias = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [&alias[..]; 9].join(",")));
        }
        bomb.push_str("includes: *a199\nnonDottedPaths: true\n");
        // Resolving all aliases would never end, and would exceed any memory.
        let plan = read(Some(bomb.as_bytes()), &NOTHING);
        assert!(plan.non_dotted_paths && plan.scope.is_all());
        let wide = format!("x: &a [{}]\nincludes: [{}]", vec!["y"; 60_000].join(","), vec!["*a"; 40_000].join(","));
        assert!(read(Some(wide.as_bytes()), &NOTHING).scope.is_all());
        check_unreadable("{a: ".repeat(60_000).as_bytes(), "more than 1000 brackets");
        check(&format!("#{}", "{".repeat(1000)), &[], &[]);
        check_unreadable(format!("#{}", "[".repeat(1001)).as_bytes(), "more than 1000 brackets");
    }

    #[test]
    fn warnings_are_escaped_and_bounded() {
        check("\"a\\e[31m\\nb\": 1", &[], &[&ignored("a\\u{1b}[31m\\nb")]);
        let long = "x".repeat(1000);
        check(&format!("{long}: 1\ny: 1"), &[], &[&ignored(&format!("{}…", &long[..NAMED_CHARS_MAX]))]);
        check("includes: !tag [a]\nx: !t {a: 1}\n1: a\n~: b", &[], &[&ignored("includes, x, 1, ~")]);
    }
}
