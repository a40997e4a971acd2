//! The result of a run, as the JSON that callers get.

use std::borrow::Cow;

use miniserde::ser::{Fragment, Map};
use miniserde::{Deserialize, Serialize, json};

use crate::model::Code;
use crate::util::shorten;

/// How many files a commit adds, modifies and deletes in the folder of the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// New files.
    pub added: usize,
    /// Files with changed content.
    pub modified: usize,
    /// Deleted files.
    pub deleted: usize,
}

/// The user of a run's Windmill token, as Windmill reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUser {
    /// The user's name in the workspace.
    pub name: String,
    /// Whether the user is an admin of the workspace, and so sees all of it.
    pub admin: bool,
}

/// Warnings: what a user should know although it is not a failure, without duplicates.
#[derive(Debug, Default)]
pub struct Warnings(Vec<String>);

impl Warnings {
    /// Adds a warning, unless it is already there.
    pub fn add(&mut self, warning: String) {
        if !self.0.contains(&warning) {
            self.0.push(warning);
        }
    }

    /// Returns all warnings so far, in order.
    pub fn list(&self) -> &[String] {
        &self.0
    }
}

/// The most items that a result lists; the others are only counted.
const LEFT_OUT_MAX: usize = 200;

const MORE: &str = " more";
const NOT_LISTED: &str = "not listed";

/// An item that could not be backed up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path, such as `f/ops/a`.
    pub item: String,
    /// Its kind, and why it was left out.
    pub reason: String,
}

impl LeftOut {
    /// Returns the first 200 items of a list. If there are more, the last entry counts them. The list may end with such
    /// a count.
    pub fn first_of(mut all: Vec<Self>) -> Vec<Self> {
        let count = |last: &Self| last.item.strip_suffix(MORE)?.parse::<usize>().ok();
        let last = all.pop_if(|last| last.reason == NOT_LISTED);
        let more = last.as_ref().and_then(count).unwrap_or(0) + all.len().saturating_sub(LEFT_OUT_MAX);
        all.truncate(LEFT_OUT_MAX);
        if more > 0 {
            all.push(Self::more(more));
        }
        all
    }

    /// Returns the last entry of a list that lacks `count` items.
    pub fn more(count: usize) -> Self {
        Self { item: format!("{count}{MORE}"), reason: NOT_LISTED.to_owned() }
    }
}

/// One file in which a workspace and its backup differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path in the folder of the backup.
    pub path: String,
    /// `missing_in_backup`, `differs` or `only_in_backup`.
    pub kind: &'static str,
    /// The difference in a few lines without secrets; empty if one side does not have the file.
    pub diff: Vec<String>,
}

/// The result of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncResult {
    /// How it ended.
    pub code: Code,
    /// What was tried, on what, and the outcome. It never contains a secret.
    pub message: String,
    /// The id of the run in logs and answers.
    pub run_id: String,
    /// The workspace.
    pub workspace: String,
    /// The branch.
    pub branch: String,
    /// The commit that the branch holds now, if that is known.
    pub commit: Option<String>,
    /// What the commit changes.
    pub changed: Changed,
    /// What a user should know although it is not a failure.
    pub warnings: Vec<String>,
    /// The items that could not be backed up. The backup keeps its previous state of them. A long list is cut, see
    /// [`LeftOut::first_of`].
    pub left_out: Vec<LeftOut>,
    /// How many items Windmill listed, if it was asked. It is not part of the JSON.
    pub items: Option<usize>,
    /// The user of the Windmill token, if the run got far enough to ask. It is not part of the JSON.
    pub token_user: Option<TokenUser>,
    /// The time from the request to the end, including waiting.
    pub duration_ms: u64,
    /// For a verification or a restore: the differences. If there are very many, only the first are listed. Files that
    /// only the backup has come last.
    pub differences: Option<Vec<Difference>>,
    /// For a restore: the branch that keeps the previous content of the workspace.
    pub restore_point: Option<String>,
}

impl Serialize for SyncResult {
    fn begin(&self) -> Fragment<'_> {
        let mut list: MemberList<'_> = vec![
            ("success", Box::new(self.code.is_success())),
            ("code", Box::new(self.code.as_str())),
            ("message", Box::new(&self.message)),
            ("run_id", Box::new(&self.run_id)),
            ("workspace", Box::new(&self.workspace)),
            ("branch", Box::new(&self.branch)),
            ("commit", Box::new(&self.commit)),
            ("changed", Box::new(self.changed)),
            ("warnings", Box::new(&self.warnings)),
            ("left_out", Box::new(&self.left_out)),
            ("duration_ms", Box::new(self.duration_ms)),
        ];
        if let Some(differences) = &self.differences {
            list.push(("differences", Box::new(differences)));
        }
        if let Some(branch) = &self.restore_point {
            list.push(("restore_point", Box::new(branch)));
        }
        object(list)
    }
}

/// The members of a JSON object, in order.
pub type MemberList<'a> = Vec<(&'static str, Box<dyn Serialize + 'a>)>;

/// Returns a JSON object with these members.
pub fn object(list: MemberList<'_>) -> Fragment<'_> {
    Fragment::Map(Box::new(Members { list, index: 0 }))
}

struct Members<'a> {
    list: MemberList<'a>,
    index: usize,
}

impl Map for Members<'_> {
    fn next(&mut self) -> Option<(Cow<'_, str>, &dyn Serialize)> {
        let (name, value) = self.list.get(self.index)?;
        self.index += 1;
        Some((Cow::Borrowed(name), &**value))
    }
}

/// The most bytes of a failed result's message in an HTTP answer. JSON may double the message and the warnings, and an
/// error answer has at most 16 KB.
const ANSWERED_MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// The most bytes of all warnings of such a result.
const ANSWERED_WARNINGS_BYTES_MAX: usize = 2 * 1024;

impl SyncResult {
    /// Returns a result without a commit, changes and warnings.
    pub fn bare(code: Code, message: String, run_id: String, workspace: String, branch: String) -> Self {
        Self { code, message, run_id, workspace, branch, ..Self::default() }
    }

    /// Shortens a failed result for an HTTP answer that has `count` results.
    pub fn for_answer(mut self, count: usize) -> Self {
        if self.code.is_success() {
            return self;
        }
        self.message = shorten(&self.message, ANSWERED_MESSAGE_BYTES_MAX / count);
        self.warnings = first_warnings(self.warnings, ANSWERED_WARNINGS_BYTES_MAX / count);
        self
    }

    /// Returns the result as one line of JSON.
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }
}

/// Returns the first entries of a list, as many as fit into `bytes_max`, and then an entry that counts the others.
pub fn keep_first<T>(
    mut list: Vec<T>,
    bytes_max: usize,
    bytes: impl Fn(&T) -> usize,
    more: impl Fn(usize) -> T,
) -> Vec<T> {
    let mut total = 0;
    let fits = |entry: &&T| {
        total += bytes(entry);
        total <= bytes_max
    };
    let kept = list.iter().take_while(fits).count();
    let others = list.len() - kept;
    if others > 0 {
        list.truncate(kept);
        list.push(more(others));
    }
    list
}

/// Returns the first of these warnings, as [`keep_first`] does.
pub fn first_warnings(warnings: Vec<String>, bytes_max: usize) -> Vec<String> {
    keep_first(warnings, bytes_max, String::len, |count| format!("and {count} more, see the log"))
}

/// Returns one code for the results of several workspaces: the first failure in their order. If all succeeded, it is
/// the code of a success that changed something, if there is one.
pub fn code_of_all(results: &[SyncResult]) -> Code {
    let codes: Vec<_> = results.iter().map(|result| result.code).collect();
    let failure = codes.iter().find(|code| !code.is_success());
    // A success that changed something has the most information.
    let change = || [Code::Restored, Code::Pushed, Code::DryRun].into_iter().find(|code| codes.contains(code));
    failure.copied().or_else(change).unwrap_or(Code::Unchanged)
}

/// Returns the results of a request as one line of JSON. A single one is not in a list.
pub fn all_to_json(results: &[SyncResult], is_single: bool) -> String {
    if let ([result], true) = (results, is_single) {
        return json::to_string(result);
    }
    let each: Vec<_> = results.iter().map(|result| [&result.workspace, " ", result.code.as_str()].concat()).collect();
    let (code, message) = (code_of_all(results), format!("{} workspaces: {}", results.len(), each.join(", ")));
    let list = json::to_string(results);
    format!("{},\"results\":{list}}}", beginning(code, &message))
}

/// Returns an error without a run as one line of JSON.
pub fn error_json(code: Code, message: &str) -> String {
    beginning(code, message) + "}"
}

/// Returns the members with which each result begins.
fn beginning(code: Code, message: &str) -> String {
    let (success, code, message) = (code.is_success(), code.as_str(), json::to_string(message));
    format!("{{\"success\":{success},\"code\":\"{code}\",\"message\":{message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(workspace: &str, code: Code) -> SyncResult {
        SyncResult::bare(code, String::new(), "r".to_owned(), workspace.to_owned(), "main".to_owned())
    }

    #[test]
    fn the_code_of_several_results_is_that_of_the_first_failure() {
        use Code::{DryRun, GitFailed, Pushed, Timeout, Unchanged};
        for (codes, expected) in [
            (&[Unchanged, Unchanged][..], Unchanged),
            (&[Unchanged, Pushed], Pushed),
            (&[Unchanged, DryRun], DryRun),
            (&[Pushed, GitFailed, Timeout], GitFailed),
        ] {
            let results: Vec<_> = codes.iter().map(|code| result("x", *code)).collect();
            assert_eq!(code_of_all(&results), expected);
        }
        let all = all_to_json(&[result("shop", Pushed), result("lab", GitFailed)], false);
        let head = "{\"success\":false,\"code\":\"git_failed\",\"message\":\"2 workspaces: shop pushed, lab git_failed\",\
                    \"results\":[{\"success\":true,\"code\":\"pushed\",";
        assert!(all.starts_with(head), "{all}");
    }

    #[test]
    fn a_result_has_the_documented_members() {
        let result = SyncResult {
            code: Code::Pushed,
            message: "Successfully synced workspace 'shop' to Git".to_owned(),
            run_id: "r1".to_owned(),
            workspace: "shop".to_owned(),
            branch: "main".to_owned(),
            commit: None,
            changed: Changed { added: 1, modified: 2, deleted: 0 },
            warnings: vec!["a \"quoted\" one".to_owned()],
            left_out: vec![LeftOut { item: "f/a".to_owned(), reason: "script: r".to_owned() }],
            duration_ms: 1234,
            ..SyncResult::default()
        };
        let expected = "{\"success\":true,\"code\":\"pushed\",\"message\":\"Successfully synced workspace 'shop' to Git\",\
            \"run_id\":\"r1\",\"workspace\":\"shop\",\"branch\":\"main\",\"commit\":null,\
            \"changed\":{\"added\":1,\"modified\":2,\"deleted\":0},\"warnings\":[\"a \\\"quoted\\\" one\"],\
            \"left_out\":[{\"item\":\"f/a\",\"reason\":\"script: r\"}],\"duration_ms\":1234}";
        assert_eq!(result.to_json(), expected);
    }
}
