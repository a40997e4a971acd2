//! What is said of a run that ended, to whom, and in which form: texts and requests, not sent yet. It touches nothing.

use miniserde::{Serialize, json};

use crate::code::Code;
use crate::config::Occasion;
use crate::names::{RemoteScheme, RemoteUrl};
use crate::outcome::SyncResult;

/// Of a result's message, what goes into a chat.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// Discord refuses longer contents; escaping may double what is in them.
const DISCORD_CHARS_MAX: usize = 2_000;

/// A run of a configured backup that ended.
#[derive(Clone)]
pub struct Notice {
    /// How.
    pub result: SyncResult,
    /// Whether it was a verification of the backup.
    pub is_verification: bool,
    /// Whether it failed, and that is news: it begins, has another code than the last one, or was not told for a day.
    pub tells_failure: bool,
    /// The failures up to this run: how many in a row, and since when.
    pub failures: Option<(u64, String)>,
    /// Where the commit can be looked at.
    pub link: Option<String>,
}

impl Notice {
    /// Whether it is one of these occasions.
    #[must_use]
    pub fn is_for(&self, occasions: &[Occasion]) -> bool {
        occasions.iter().any(|occasion| match occasion {
            Occasion::Failure => self.tells_failure,
            Occasion::Recovery => self.is_recovery(),
            Occasion::Change => self.result.code == Code::Pushed,
            Occasion::Always => true,
        })
    }

    fn is_recovery(&self) -> bool {
        self.result.code.is_success() && self.failures.is_some()
    }

    /// What happened, in one line. Texts from elsewhere go through `escape`, the commit through `link`.
    fn sentence(&self, escape: fn(&str) -> String, link: fn(&str, &str) -> String) -> String {
        let result = &self.result;
        let workspace = escape(&result.workspace);
        let what = if self.is_verification { "verification" } else { "backup" };
        let mut sentence = match (&self.failures, result.code) {
            (Some((count, since)), code) if code.is_success() => {
                format!("✅ The {what} of workspace {workspace} works again (failures since {since}: {count}): ")
            }
            (_, code) if code.is_success() => format!("✅ Workspace {workspace}: "),
            (failures, code) => {
                let code = escape(code.as_str());
                let row = match failures {
                    Some((count, since)) if *count > 1 => format!(", {count} in a row since {since}"),
                    _ => String::new(),
                };
                format!("❌ The {what} of workspace {workspace} failed ({code}{row}): ")
            }
        };
        match result.code {
            Code::Pushed => {
                let changed = result.changed;
                sentence +=
                    &format!("{} added, {} modified, {} deleted", changed.added, changed.modified, changed.deleted);
            }
            Code::Unchanged if !self.is_verification => sentence += "nothing has changed",
            _ => sentence += &escape(&shortened(&result.message)),
        }
        if let Some(commit) = &result.commit {
            let short = commit.get(..10).unwrap_or(commit);
            sentence += ", commit ";
            sentence += &self.link.as_ref().map_or_else(|| short.to_owned(), |page| link(page, short));
        }
        sentence
    }

    /// The body for an incoming webhook of Slack.
    #[must_use]
    pub fn for_slack(&self) -> String {
        #[derive(Serialize)]
        struct Message {
            text: String,
            mrkdwn: bool,
        }
        let text = self.sentence(escaped_for_slack, |page, short| format!("<{page}|{short}>"));
        json::to_string(&Message { text, mrkdwn: false })
    }

    /// The body for a webhook of Discord. It mentions nobody, whatever is in the text.
    #[must_use]
    pub fn for_discord(&self) -> String {
        #[derive(Serialize)]
        struct Mentions {
            parse: Vec<String>,
        }
        #[derive(Serialize)]
        struct Message {
            content: String,
            allowed_mentions: Mentions,
        }
        let content = self.sentence(escaped_for_discord, |page, short| format!("[{short}](<{page}>)"));
        let content = content.chars().take(DISCORD_CHARS_MAX).collect();
        json::to_string(&Message { content, allowed_mentions: Mentions { parse: Vec::new() } })
    }
}

/// Where a heartbeat goes: the URL itself, or `/fail` below it.
#[must_use]
pub fn heartbeat_url(url: &str, code: Code) -> String {
    if code.is_success() {
        return url.to_owned();
    }
    let (path, query) = url.split_at(url.find('?').unwrap_or(url.len()));
    format!("{}/fail{query}", path.trim_end_matches('/'))
}

/// The page of a commit, where the host's name tells which forge it is.
#[must_use]
pub fn commit_page(remote: &RemoteUrl, commit: &str) -> Option<String> {
    let is_labelled = |label: &str| remote.host().split('.').any(|one| one == label);
    let words = match remote.host() {
        "bitbucket.org" => "commits",
        "codeberg.org" => "commit",
        _ if is_labelled("gitlab") => "-/commit",
        _ if is_labelled("github") || is_labelled("gitea") || is_labelled("forgejo") => "commit",
        _ => return None,
    };
    let text = remote.as_str();
    let (origin, path) = match (remote.scheme(), text.split_once("://")) {
        (RemoteScheme::Https | RemoteScheme::Http, Some((scheme, rest))) => {
            let (authority, path) = rest.split_once('/')?;
            (format!("{scheme}://{authority}"), path)
        }
        // Its port is that of ssh.
        (RemoteScheme::Ssh, Some((_, rest))) => (format!("https://{}", remote.host()), rest.split_once('/')?.1),
        (RemoteScheme::Ssh, None) => (format!("https://{}", remote.host()), text.split_once(':')?.1),
        _ => return None,
    };
    let path = path.trim_matches('/').trim_end_matches(".git");
    Some(format!("{origin}/{path}/{words}/{commit}"))
}

fn shortened(message: &str) -> String {
    let message = message.replace('\n', " | ");
    if message.chars().count() <= MESSAGE_CHARS_MAX {
        return message;
    }
    message.chars().take(MESSAGE_CHARS_MAX).chain(['…']).collect()
}

/// The three characters that Slack asks to be escaped: without them no link and no mention can be made.
fn escaped_for_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Markdown that is text.
fn escaped_for_discord(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Changed;

    fn notice(code: Code, message: &str) -> Notice {
        let result = SyncResult {
            code,
            message: message.to_owned(),
            run_id: "r".to_owned(),
            workspace: "shop".to_owned(),
            branch: "main".to_owned(),
            commit: code.is_success().then(|| "0123456789abcdef0123456789abcdef01234567".to_owned()),
            changed: Changed { added: 1, modified: 2, deleted: 0 },
            warnings: Vec::new(),
            duration_ms: 5,
        };
        Notice { result, is_verification: false, tells_failure: !code.is_success(), failures: None, link: None }
    }

    #[test]
    fn a_chat_is_told_what_happened_to_which_workspace() {
        let link = Some("https://github.com/a/b/commit/0123".to_owned());
        let pushed = Notice { link, ..notice(Code::Pushed, "") };
        let said = "{\"text\":\"✅ Workspace shop: 1 added, 2 modified, 0 deleted, commit \
                    <https://github.com/a/b/commit/0123|0123456789>\",\"mrkdwn\":false}";
        assert_eq!(pushed.for_slack(), said);
        let said = "{\"content\":\"✅ Workspace shop: 1 added, 2 modified, 0 deleted, commit \
                    [0123456789](<https://github.com/a/b/commit/0123>)\",\"allowed_mentions\":{\"parse\":[]}}";
        assert_eq!(pushed.for_discord(), said);
        let failing = Some((3, "2026-11-22T18:00:00Z".to_owned()));
        let failed = Notice { failures: failing.clone(), ..notice(Code::GitRejected, "<!channel> & *x*\nend") };
        let said = "{\"text\":\"❌ The backup of workspace shop failed (git_rejected, 3 in a row since \
                    2026-11-22T18:00:00Z): &lt;!channel&gt; &amp; *x* | end\",\"mrkdwn\":false}";
        assert_eq!(failed.for_slack(), said);
        assert!(failed.for_discord().contains("\\\\<\\\\!channel\\\\> \\\\& \\\\*x\\\\*"), "{}", failed.for_discord());
        let healed = Notice { failures: failing, ..notice(Code::Unchanged, "") };
        assert!(healed.for_slack().contains("works again (failures since 2026-11-22T18:00:00Z: 3): nothing has"));
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
        // Each is escaped.
        check(&"*".repeat(5_000), 2_000);
    }

    #[test]
    fn an_occasion_is_one_or_not() {
        let failures = Some((2, String::new()));
        let quiet = Notice { tells_failure: false, ..notice(Code::Timeout, "") };
        let recovery = Notice { failures: failures.clone(), ..notice(Code::Unchanged, "") };
        let again = Notice { failures, ..notice(Code::Timeout, "") };
        for (notice, expected) in [
            (&notice(Code::Timeout, ""), [true, false, false, true]),
            (&quiet, [false, false, false, true]),
            (&again, [true, false, false, true]),
            (&recovery, [false, true, false, true]),
            (&notice(Code::Unchanged, ""), [false, false, false, true]),
            (&notice(Code::Pushed, ""), [false, false, true, true]),
        ] {
            let occasions = [Occasion::Failure, Occasion::Recovery, Occasion::Change, Occasion::Always];
            assert_eq!(occasions.map(|one| notice.is_for(&[one])), expected, "{}", notice.result.code.as_str());
            assert!(!notice.is_for(&[]));
        }
    }

    #[test]
    fn a_commit_has_a_page_where_the_forge_is_known() {
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
    fn a_heartbeat_fails_below_its_own_path() {
        assert_eq!(heartbeat_url("https://hc.example/abc", Code::Pushed), "https://hc.example/abc");
        assert_eq!(heartbeat_url("https://hc.example/abc", Code::Timeout), "https://hc.example/abc/fail");
        assert_eq!(heartbeat_url("https://hc.example/abc/?x=1", Code::Timeout), "https://hc.example/abc/fail?x=1");
    }
}
