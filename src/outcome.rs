//! What a run ends with, as the JSON that callers get. It does not know what led to it.

use miniserde::{Deserialize, Serialize, json};

use crate::code::Code;

/// Files that a commit adds, modifies and deletes in the folder of the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// New files.
    pub added: usize,
    /// Files with other content.
    pub modified: usize,
    /// Files that are gone.
    pub deleted: usize,
}

/// The end of one sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResult {
    /// How it ended.
    pub code: Code,
    /// What was tried, on what, and how it went. Never a secret.
    pub message: String,
    /// Names the run in logs and answers.
    pub run_id: String,
    /// The workspace.
    pub workspace: String,
    /// The branch.
    pub branch: String,
    /// The commit that the branch holds now, where that is known.
    pub commit: Option<String>,
    /// What the commit changes.
    pub changed: Changed,
    /// What a user should know although it is no failure.
    pub warnings: Vec<String>,
    /// From the request to the end, waiting included.
    pub duration_ms: u64,
}

#[derive(Serialize)]
struct Document<'a> {
    success: bool,
    code: &'a str,
    message: &'a str,
    run_id: &'a str,
    workspace: &'a str,
    branch: &'a str,
    commit: Option<&'a str>,
    changed: Changed,
    warnings: &'a Vec<String>,
    duration_ms: u64,
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    success: bool,
    code: &'a str,
    message: &'a str,
}

impl SyncResult {
    /// The result as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::to_string(&Document {
            success: self.code.is_success(),
            code: self.code.as_str(),
            message: &self.message,
            run_id: &self.run_id,
            workspace: &self.workspace,
            branch: &self.branch,
            commit: self.commit.as_deref(),
            changed: self.changed,
            warnings: &self.warnings,
            duration_ms: self.duration_ms,
        })
    }
}

/// An error without a run, as one line of JSON.
#[must_use]
pub fn error_json(code: Code, message: &str) -> String {
    json::to_string(&ErrorDocument { success: false, code: code.as_str(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_the_document_of_the_contract() {
        let result = SyncResult {
            code: Code::Pushed,
            message: "Successfully synced workspace 'shop' to Git".to_owned(),
            run_id: "r1".to_owned(),
            workspace: "shop".to_owned(),
            branch: "main".to_owned(),
            commit: None,
            changed: Changed { added: 1, modified: 2, deleted: 0 },
            warnings: vec!["a \"quoted\" one".to_owned()],
            duration_ms: 1234,
        };
        let expected = "{\"success\":true,\"code\":\"pushed\",\"message\":\"Successfully synced workspace 'shop' to Git\",\
            \"run_id\":\"r1\",\"workspace\":\"shop\",\"branch\":\"main\",\"commit\":null,\
            \"changed\":{\"added\":1,\"modified\":2,\"deleted\":0},\"warnings\":[\"a \\\"quoted\\\" one\"],\
            \"duration_ms\":1234}";
        assert_eq!(result.to_json(), expected);
    }
}
