//! The messages about an ended run: who receives them, and in which form.

use miniserde::json;
use ureq::http::Uri;

use crate::model::{Code, RemoteUrl, SyncResult};
use crate::service::BackupStatus;
use crate::util::first_chars;

/// The most characters of a result's message in a chat message.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// The most warnings, and the most left out items, in a chat message. The others are in the log and at `/status`.
const LISTED_MAX: usize = 5;
/// The most characters of each of these in a chat message.
const LISTED_CHARS_MAX: usize = 200;
/// ntfy turns a longer message into a file.
const NTFY_BYTES_MAX: usize = 4_000;
/// Discord refuses a longer content. Escaping may double its length.
const DISCORD_CHARS_MAX: usize = 2_000;

/// A run of a configured backup that ended, or a backup that is overdue.
#[derive(Clone)]
pub struct Notice {
    /// The result of the run.
    pub result: SyncResult,
    /// What the notice is about.
    pub subject: Subject,
    /// Whether this is a failure to report: the first one, one with another code or other left out items than the
    /// last one, or one a day after the last notice.
    pub reports_failure: bool,
    /// After a success, the trouble that is over now; after a failure, how many there were in a row. It is empty if
    /// there was no trouble before.
    pub trouble: String,
    /// The web page of the commit.
    pub link: Option<String>,
}

/// What a [`Notice`] is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A backup.
    Backup,
    /// A verification of a backup.
    Verification,
    /// Windmill lists all workspaces again. There was no run, so the result has no meaning.
    List,
}

impl Notice {
    /// Returns the notice of a result. `status` is the one before a success, or after a failure. Differences show
    /// content of the workspace, so they are left out.
    pub fn new(result: SyncResult, subject: Subject, status: &BackupStatus) -> Self {
        let result = SyncResult { differences: None, ..result };
        let is_success = result.code.is_success();
        let trouble = match (status.consecutive_failures, &status.failing_since, &status.overdue) {
            (count, Some(since), _) if is_success => format!("failures since {since}: {count}"),
            (2.., Some(since), _) => format!("{} in a row since {since}", status.consecutive_failures),
            (_, _, Some(overdue)) if is_success => format!("overdue since {}", overdue.since),
            _ => String::new(),
        };
        let is_alert = status.last_alert.as_ref().is_some_and(|alert| alert.run_id == result.run_id);
        let reports_failure = is_alert || result.code == Code::Overdue;
        Self { result, subject, reports_failure, trouble, link: None }
    }

    /// Whether the notice is for one of these occasions.
    pub fn is_for(&self, occasions: &[&str]) -> bool {
        occasions.iter().any(|occasion| match *occasion {
            "failure" => self.reports_failure,
            "recovery" => self.is_recovery(),
            "change" => self.result.code == Code::Pushed,
            _ => true,
        })
    }

    fn is_recovery(&self) -> bool {
        self.result.code.is_success() && !self.trouble.is_empty()
    }

    /// Returns what happened, in one line. `escape` is applied to texts from other sources, `link` to the commit.
    fn sentence(&self, escape: fn(&str) -> String, link: fn(&str, &str) -> String) -> String {
        let result = &self.result;
        let workspace = escape(&result.workspace);
        let trouble = &self.trouble;
        let what = match self.subject {
            Subject::Backup => "backup",
            Subject::Verification => "verification",
            Subject::List => return format!("✅ Windmill lists its workspaces again ({trouble})"),
        };
        let mut sentence = match result.code {
            _ if self.is_recovery() => format!("✅ The {what} of workspace {workspace} works again ({trouble}): "),
            code if code.is_success() => format!("✅ Workspace {workspace}: "),
            Code::Overdue => format!("❌ The {what} of workspace {workspace} is overdue: "),
            Code::Incomplete => format!("⚠️ The {what} of workspace {workspace} is incomplete: "),
            code => {
                let row = if trouble.is_empty() { String::new() } else { format!(", {trouble}") };
                format!("❌ The {what} of workspace {workspace} failed ({}{row}): ", escape(code.as_str()))
            }
        };
        match result.code {
            Code::Pushed => {
                let changed = result.changed;
                sentence +=
                    &format!("{} added, {} modified, {} deleted", changed.added, changed.modified, changed.deleted);
            }
            Code::Unchanged if self.subject == Subject::Backup => sentence += "nothing has changed",
            _ => sentence += &escape(&shortened(&result.message, MESSAGE_CHARS_MAX)),
        }
        if let Some(commit) = &result.commit {
            let short = commit.get(..10).unwrap_or(commit);
            sentence += ", commit ";
            sentence += &self.link.as_ref().map_or_else(|| short.to_owned(), |page| link(page, short));
        }
        let left_out: Vec<_> =
            result.left_out.iter().map(|left| format!("left out: {}: {}", left.item, left.reason)).collect();
        sentence += &listed("❌", &left_out, escape);
        sentence += &listed("⚠️", &result.warnings, escape);
        sentence
    }

    /// Returns the body for an ntfy topic, which is plain text.
    pub fn for_ntfy(&self) -> String {
        let mut text = self.sentence(str::to_owned, |page, short| format!("{short} ({page})"));
        text.truncate(text.floor_char_boundary(NTFY_BYTES_MAX));
        text
    }

    /// Returns the body for an incoming webhook of Slack.
    pub fn for_slack(&self) -> String {
        let text = self.sentence(escaped_for_slack, |page, short| format!("<{page}|{short}>"));
        format!(r#"{{"text":{},"mrkdwn":false}}"#, json::to_string(&text))
    }

    /// Returns the body for a webhook of Discord. It mentions no user, even if the text does.
    pub fn for_discord(&self) -> String {
        let content = self.sentence(escaped_for_discord, |page, short| format!("[{short}](<{page}>)"));
        let content: String = content.chars().take(DISCORD_CHARS_MAX).collect();
        format!(r#"{{"content":{},"allowed_mentions":{{"parse":[]}}}}"#, json::to_string(&content))
    }
}

/// Whether an address is an ntfy topic: a part of the host name is `ntfy`, and the path is only the topic. ntfy shows a
/// body unchanged.
pub fn is_ntfy_topic(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let topic = url.path().trim_matches('/');
    let is_ntfy = |label: &str| label.eq_ignore_ascii_case("ntfy");
    url.host().unwrap_or_default().split('.').any(is_ntfy) && !topic.is_empty() && !topic.contains('/')
}

/// Returns where a heartbeat goes: the URL itself, or `/fail` below its path after a failure. The fragment is removed:
/// clients do not send it, so text appended after it would be lost.
pub fn heartbeat_url(url: &str, code: Code) -> String {
    let url = url.split('#').next().unwrap_or_default();
    if code.is_success() {
        return url.to_owned();
    }
    let (path, query) = url.split_at(url.find('?').unwrap_or(url.len()));
    format!("{}/fail{query}", path.trim_end_matches('/'))
}

/// Returns the web page of a commit, if the host's name shows which forge it is.
pub fn commit_page(remote: &RemoteUrl, commit: &str) -> Option<String> {
    let is_labelled = |label: &str| remote.host().split('.').any(|part| part == label);
    let words = match remote.host() {
        "bitbucket.org" => "commits",
        "codeberg.org" => "commit",
        _ if is_labelled("gitlab") => "-/commit",
        _ if is_labelled("github") || is_labelled("gitea") || is_labelled("forgejo") => "commit",
        _ => return None,
    };
    let text = remote.as_str();
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => text.split_once(':')?.1,
    };
    // The port of an ssh remote is for ssh, so it is left out.
    let origin = remote.origin().unwrap_or_else(|| format!("https://{}/", remote.host()));
    Some(format!("{origin}{}/{words}/{commit}", path.trim_matches('/').trim_end_matches(".git")))
}

fn shortened(message: &str, chars_max: usize) -> String {
    first_chars(&message.replace('\n', " | "), chars_max).into_owned()
}

/// Returns the first lines, and how many more there are.
fn listed(mark: &str, lines: &[String], escape: fn(&str) -> String) -> String {
    let shown = lines.iter().take(LISTED_MAX);
    let mut text: String =
        shown.map(|line| format!("\n{mark} {}", escape(&shortened(line, LISTED_CHARS_MAX)))).collect();
    if lines.len() > LISTED_MAX {
        text += &format!("\n{mark} and {} more", lines.len() - LISTED_MAX);
    }
    text
}

/// Escapes the three characters that Slack requires, so that the text contains no link and no mention.
fn escaped_for_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escapes Markdown, so that it is shown as text.
fn escaped_for_discord(text: &str) -> String {
    let escape = |character: char| character.is_ascii_punctuation().then_some('\\').into_iter().chain([character]);
    text.chars().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Changed, Difference, LeftOut};
    use crate::service::OverdueAlert;

    fn notice(code: Code, message: &str) -> Notice {
        notice_after(&BackupStatus::default(), code, message)
    }

    /// Returns the notice of a run with this status before it (a success) or after it (a failure).
    fn notice_after(status: &BackupStatus, code: Code, message: &str) -> Notice {
        let (id, workspace, branch) = ("r".to_owned(), "shop".to_owned(), "main".to_owned());
        let result = SyncResult {
            commit: code.is_success().then(|| "0123456789abcdef0123456789abcdef01234567".to_owned()),
            changed: Changed { added: 1, modified: 2, deleted: 0 },
            ..SyncResult::bare(code, message.to_owned(), id, workspace, branch)
        };
        Notice { reports_failure: !code.is_success(), ..Notice::new(result, Subject::Backup, status) }
    }

    #[test]
    fn a_chat_message_names_the_workspace_and_the_result() {
        let link = Some("https://github.com/a/b/commit/0123".to_owned());
        let pushed = Notice { link, ..notice(Code::Pushed, "") };
        let expected = "{\"text\":\"✅ Workspace shop: 1 added, 2 modified, 0 deleted, commit \
                    <https://github.com/a/b/commit/0123|0123456789>\",\"mrkdwn\":false}";
        assert_eq!(pushed.for_slack(), expected);
        let expected = "{\"content\":\"✅ Workspace shop: 1 added, 2 modified, 0 deleted, commit \
                    [0123456789](<https://github.com/a/b/commit/0123>)\",\"allowed_mentions\":{\"parse\":[]}}";
        assert_eq!(pushed.for_discord(), expected);
        let since = "2026-11-22T18:00:00Z".to_owned();
        let failing =
            BackupStatus { consecutive_failures: 3, failing_since: Some(since.clone()), ..BackupStatus::default() };
        let failed = notice_after(&failing, Code::GitRejected, "<!channel> & *x*\nend");
        let expected = "{\"text\":\"❌ The backup of workspace shop failed (git_rejected, 3 in a row since \
                    2026-11-22T18:00:00Z): &lt;!channel&gt; &amp; *x* | end\",\"mrkdwn\":false}";
        assert_eq!(failed.for_slack(), expected);
        assert!(failed.for_discord().contains("\\\\<\\\\!channel\\\\> \\\\& \\\\*x\\\\*"), "{}", failed.for_discord());
        let healed = notice_after(&failing, Code::Unchanged, "");
        assert!(healed.for_slack().contains("works again (failures since 2026-11-22T18:00:00Z: 3): nothing has"));
        let overdue = Some(OverdueAlert { since, sent: String::new() });
        let back = notice_after(&BackupStatus { overdue, ..BackupStatus::default() }, Code::Unchanged, "");
        assert!(back.is_for(&["recovery"]));
        assert!(back.for_ntfy().contains("works again (overdue since 2026-11-22T18:00:00Z): nothing has"));
    }

    #[test]
    fn no_notice_shows_differences_of_content() {
        let difference = Difference { path: "f/a".to_owned(), kind: "differs", diff: vec!["- hunter2".to_owned()] };
        let result = SyncResult { differences: Some(vec![difference]), ..notice(Code::Differs, "").result };
        assert!(result.to_json().contains("hunter2"));
        assert!(
            !Notice::new(result, Subject::Verification, &BackupStatus::default())
                .result
                .to_json()
                .contains("differences")
        );
    }

    #[test]
    fn a_chat_message_lists_the_first_warnings_and_left_out_items() {
        let mut incomplete = notice(Code::Incomplete, "1 of 20 items");
        incomplete.result.warnings = (1..8).map(|number| format!("<warning> {number}")).collect();
        incomplete.result.left_out = vec![LeftOut { item: "f/ops/bad".to_owned(), reason: "no text".to_owned() }];
        let text = incomplete.for_ntfy();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "⚠️ The backup of workspace shop is incomplete: 1 of 20 items",
                "❌ left out: f/ops/bad: no text",
                "⚠️ <warning> 1",
            ]
        );
        assert_eq!((lines.len(), lines[7]), (8, "⚠️ and 2 more"));
        assert!(incomplete.for_slack().contains("\\n⚠️ &lt;warning&gt; 1"));
        incomplete.result.warnings = vec!["é".repeat(5_000); 9];
        assert!(incomplete.for_ntfy().len() <= NTFY_BYTES_MAX);
        assert!(incomplete.for_discord().chars().count() < 2_200);
    }

    #[test]
    fn a_discord_message_is_never_too_long() {
        #[track_caller]
        fn check(message: &str, expected: usize) {
            let value = json::from_str(&notice(Code::Timeout, message).for_discord()).unwrap();
            let json::Value::Object(fields) = value else { panic!("no object") };
            let json::Value::String(content) = &fields["content"] else { panic!("no text") };
            assert_eq!(content.chars().count(), expected, "{content}");
        }
        let frame = "❌ The backup of workspace shop failed (timeout): ".chars().count();
        check("é", frame + 1);
        check(&"é".repeat(5_000), frame + 1_001);
        // Each of these characters is escaped.
        check(&"*".repeat(5_000), 2_000);
    }

    #[test]
    fn a_notice_is_sent_only_on_its_occasions() {
        let failing =
            BackupStatus { consecutive_failures: 2, failing_since: Some(String::new()), ..Default::default() };
        let quiet = Notice { reports_failure: false, ..notice(Code::Timeout, "") };
        let recovery = notice_after(&failing, Code::Unchanged, "");
        let again = notice_after(&failing, Code::Timeout, "");
        for (notice, expected) in [
            (&notice(Code::Timeout, ""), [true, false, false, true]),
            (&quiet, [false, false, false, true]),
            (&again, [true, false, false, true]),
            (&recovery, [false, true, false, true]),
            (&notice(Code::Unchanged, ""), [false, false, false, true]),
            (&notice(Code::Pushed, ""), [false, false, true, true]),
        ] {
            let occasions = ["failure", "recovery", "change", "always"];
            let is_for = occasions.map(|occasion| notice.is_for(&[occasion]));
            assert_eq!(is_for, expected, "{}", notice.result.code.as_str());
            assert!(!notice.is_for(&[]));
        }
    }

    #[test]
    fn a_commit_has_a_page_if_the_forge_is_known() {
        #[track_caller]
        fn check(remote: &str, expected: Option<&str>) {
            assert_eq!(commit_page(&RemoteUrl::parse(remote).unwrap(), "c0ffee").as_deref(), expected, "{remote}");
        }
        check("https://github.com/a/b.git", Some("https://github.com/a/b/commit/c0ffee"));
        check("git@github.com:a/b.git", Some("https://github.com/a/b/commit/c0ffee"));
        check("ssh://git@gitlab.example.com:2222/a/b/c", Some("https://gitlab.example.com/a/b/c/-/commit/c0ffee"));
        check("http://gitea.lan:3000/a/b/", Some("http://gitea.lan:3000/a/b/commit/c0ffee"));
        check("https://bitbucket.org/a/b", Some("https://bitbucket.org/a/b/commits/c0ffee"));
        check("https://codeberg.org/a/b", Some("https://codeberg.org/a/b/commit/c0ffee"));
        check("https://git.example.com/github/b", None);
        check("file:///srv/github/b.git", None);
    }

    #[test]
    fn a_failure_is_sent_below_the_path_of_the_heartbeat() {
        assert_eq!(heartbeat_url("https://hc.example/abc", Code::Pushed), "https://hc.example/abc");
        assert_eq!(heartbeat_url("https://hc.example/abc", Code::Timeout), "https://hc.example/abc/fail");
        assert_eq!(heartbeat_url("https://hc.example/abc/?x=1", Code::Timeout), "https://hc.example/abc/fail?x=1");
        assert_eq!(heartbeat_url("https://hc.example/abc#nightly", Code::Pushed), "https://hc.example/abc");
        for url in ["https://hc.example/abc#nightly", "https://hc.example/abc/#a?b", "https://hc.example/abc#"] {
            assert_eq!(heartbeat_url(url, Code::Timeout), "https://hc.example/abc/fail", "{url}");
        }
        assert_eq!(heartbeat_url("https://hc.example?k=a/b#c", Code::Timeout), "https://hc.example/fail?k=a/b");
    }

    #[test]
    fn an_ntfy_topic_is_recognized_by_its_host_and_path() {
        for url in [
            "https://ntfy.sh/backups",
            "http://ntfy/b/",
            "https://ntfy.example.com:8443/b?auth=x",
            "https://u:p@NTFY.sh/b",
        ] {
            assert!(is_ntfy_topic(url), "{url}");
        }
        for url in [
            "https://ntfy.sh",
            "https://ntfy.sh/",
            "https://ntfy.sh/a/b",
            "https://example.com/ntfy",
            "https://ntfysh/b",
        ] {
            assert!(!is_ntfy_topic(url), "{url}");
        }
    }
}
