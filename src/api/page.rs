//! A [`Report`] as a small HTML page that a person reads at a glance: no scripts, nothing from elsewhere, light and dark.
//! Every text in it, wherever it came from, is escaped.

use std::fmt::{self, Display, Write as _};
use std::time::{Duration, SystemTime};

use crate::history::{Bar, Record, time_of};
use crate::outcome::Changed;
use crate::report::{Going, Report, Workspace};

/// What the page may load: nothing but the style and the icon that it bears itself.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// The media type of the page.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

const STYLE: &str = include_str!("page.css");
/// How often a browser asks again, while something goes on and otherwise.
const REFRESH_SECONDS: [u32; 2] = [3, 30];
/// Rows of the table of runs.
const RUNS_SHOWN_MAX: usize = 12;
/// Warnings of a workspace's last run.
const WARNINGS_SHOWN_MAX: usize = 5;
/// Of the picture, in its own units: one bar with its gap, and the highest bar.
const BAR_WIDTH: usize = 10;
const BAR_HEIGHT_MAX: u64 = 60;
/// A run that took no time is seen nevertheless.
const BAR_HEIGHT_MIN: u64 = 3;
/// Where fewer runs are known, their bars are no wider.
const BARS_MIN: usize = 24;

/// The page at the time `now`.
#[must_use]
pub fn render(report: &Report, now: SystemTime) -> String {
    let is_busy = !report.running.is_empty() || !report.waiting.is_empty();
    let refresh = REFRESH_SECONDS[usize::from(!is_busy)];
    let (color, state) = if report.ready { ("%2318794e", "all is well") } else { ("%23c62828", "failing") };
    let mut page = String::with_capacity(16 << 10);
    // Writing to a String does not fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"{refresh}\">\n\
         <link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 2 2'%3E\
         %3Ccircle cx='1' cy='1' r='1' fill='{color}'/%3E%3C/svg%3E\">\n\
         <title>{state} · windmill-git-sync</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>windmill-git-sync</h1><span class=\"faint\">{} · up {} · as of {}</span></header>\n<main>\n",
        report.version,
        Span(Duration::from_secs(report.uptime_seconds)),
        Text(&report.time),
    );
    for workspace in &report.workspaces {
        write_workspace(&mut page, workspace, report, now);
    }
    write_runs(&mut page, &report.runs, now);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn write_workspace(page: &mut String, workspace: &Workspace, report: &Report, now: SystemTime) {
    let is_its = |run: &&Going| run.workspace == workspace.workspace && run.configured == workspace.configured;
    let running = report.running.iter().find(is_its);
    let waiting = report.waiting.iter().filter(is_its).count();
    let (class, state) = state_of(workspace);
    let _ = write!(
        page,
        "<section>\n<div class=\"top\"><h2>{}</h2><span class=\"badge {class}\">{state}</span>",
        Text(&workspace.workspace)
    );
    if running.is_some() {
        page.push_str("<span class=\"badge busy\">syncing</span>");
    }
    if !workspace.configured {
        page.push_str("<span class=\"faint\">by requests with settings of their own</span>");
    }
    page.push_str("</div>\n<p class=\"big\">");
    match &workspace.last_success {
        Some(run) => {
            let _ = write!(page, "Last success {}", Ago::new(&run.ended, now));
        }
        None => page.push_str("No success yet"),
    }
    page.push_str("</p>\n<dl>\n");
    if let Some(run) = &workspace.last_success {
        let _ = writeln!(page, "<dt>holds</dt><dd>{} on <code>{}</code></dd>", Commit(run), Text(&run.branch));
    }
    write_verification(page, workspace, now);
    write_failure(page, workspace, now);
    let next = report.next.iter().find(|next| workspace.configured && next.workspace == workspace.workspace);
    write_now_and_next(page, workspace, running, waiting, next.is_some());
    if let Some(next) = next {
        let _ = writeln!(page, "<dt>scheduled</dt><dd>{}</dd>", Ahead::new(&next.time, now));
    }
    if let Some(run) = &workspace.last_run {
        write_warnings(page, run);
    }
    page.push_str("</dl>\n");
    write_picture(page, &workspace.last_runs);
    page.push_str("</section>\n");
}

fn state_of(workspace: &Workspace) -> (&'static str, &'static str) {
    match &workspace.last_run {
        None => ("idle", "no sync yet"),
        Some(run) if run.success => ("good", "backed up"),
        Some(_) => ("bad", "failing"),
    }
}

fn write_verification(page: &mut String, workspace: &Workspace, now: SystemTime) {
    let Some(run) = &workspace.last_verify else { return };
    let time = Ago::new(&run.ended, now);
    let _ = if run.success {
        writeln!(page, "<dt>verified</dt><dd>{time}</dd>")
    } else {
        let (code, message) = (Text(&run.code), Text(&run.message));
        writeln!(
            page,
            "<dt>verified</dt><dd>{time}, <code class=\"bad\">{code}</code><br><span class=\"why bad\">{message}</span></dd>"
        )
    };
}

fn write_failure(page: &mut String, workspace: &Workspace, now: SystemTime) {
    let Some(failure) = &workspace.last_failure else { return };
    let is_over = workspace.last_run.as_ref().is_some_and(|run| run.success);
    let class = if is_over { "faint" } else { "bad" };
    let _ = write!(
        page,
        "<dt>last failure</dt><dd>{}, <code class=\"{class}\">{}</code>",
        Ago::new(&failure.ended, now),
        Text(&failure.code)
    );
    if let (Some(since), true) = (&workspace.failing_since, workspace.consecutive_failures > 1) {
        let _ = write!(page, ", {} in a row since {}", workspace.consecutive_failures, Ago::new(since, now));
    }
    let _ = writeln!(page, "<br><span class=\"why {class}\">{}</span></dd>", Text(&failure.message));
}

fn write_now_and_next(
    page: &mut String,
    workspace: &Workspace,
    running: Option<&Going>,
    waiting: usize,
    is_scheduled: bool,
) {
    if let Some(run) = running {
        let show = match (run.dry_run, run.verify) {
            (true, _) => "dry run, ",
            (false, true) => "verification, ",
            (false, false) => "",
        };
        let time = Span(Duration::from_millis(run.elapsed_ms));
        let _ = writeln!(page, "<dt>now</dt><dd class=\"busy\">{show}{} for {time}</dd>", Text(run.step));
    }
    let next = match waiting {
        // Nobody knows whether another such request comes, and the schedule has its own line.
        0 if !workspace.configured || is_scheduled => return,
        0 => "when <code>POST /sync</code> or the <code>sync</code> command asks for it".to_owned(),
        1 => "one run waits for its turn".to_owned(),
        _ => format!("{waiting} runs wait for their turn"),
    };
    let _ = writeln!(page, "<dt>next</dt><dd>{next}</dd>");
}

fn write_warnings(page: &mut String, run: &Record) {
    if run.warnings.is_empty() {
        return;
    }
    page.push_str("<dt>warnings</dt><dd><ul>");
    for warning in run.warnings.iter().take(WARNINGS_SHOWN_MAX) {
        let _ = write!(page, "<li>{}</li>", Text(warning));
    }
    if run.warnings.len() > WARNINGS_SHOWN_MAX {
        let _ = write!(page, "<li>and {} more</li>", run.warnings.len() - WARNINGS_SHOWN_MAX);
    }
    page.push_str("</ul></dd>\n");
}

/// One bar a run, as high as the run was long.
fn write_picture(page: &mut String, bars: &[Bar]) {
    let Some(longest) = bars.iter().map(|bar| bar.duration_ms).max() else { return };
    let shortest = bars.iter().map(|bar| bar.duration_ms).min().unwrap_or(longest);
    let failed = bars.iter().filter(|bar| !bar.success).count();
    let width = bars.len().max(BARS_MIN) * BAR_WIDTH;
    let _ = write!(
        page,
        "<figure><svg viewBox=\"0 0 {width} {BAR_HEIGHT_MAX}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"Durations of the last runs\">"
    );
    for (index, bar) in bars.iter().enumerate() {
        let height = (bar.duration_ms * BAR_HEIGHT_MAX / longest.max(1)).max(BAR_HEIGHT_MIN);
        let class = if bar.success { "good" } else { "bad" };
        let _ = write!(
            page,
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{height}\"/>",
            index * BAR_WIDTH + 1,
            BAR_HEIGHT_MAX - height,
            BAR_WIDTH - 2,
        );
    }
    let span = |milliseconds| Span(Duration::from_millis(milliseconds));
    let _ = write!(page, "</svg><figcaption>the last {} took {}", Count(bars.len(), "run"), span(shortest));
    if longest > shortest {
        let _ = write!(page, " to {}", span(longest));
    }
    let _ = writeln!(page, "; {failed} failed</figcaption></figure>");
}

fn write_runs(page: &mut String, runs: &[Record], now: SystemTime) {
    if runs.is_empty() {
        return;
    }
    page.push_str(
        "<section>\n<h3>Last runs</h3>\n<div class=\"scroll\"><table>\n<tr><th>ended</th><th>workspace</th><th>result</th>\
         <th>changes</th><th>took</th><th class=\"wide\">commit</th><th class=\"wide\">run</th></tr>\n",
    );
    for run in runs.iter().take(RUNS_SHOWN_MAX) {
        let class = if run.success { "good" } else { "bad" };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{}{}</td><td class=\"number\">{}</td><td>{}</td>\
             <td class=\"wide\">{}</td><td class=\"wide faint\"><code>{}</code></td></tr>",
            Ago::new(&run.ended, now),
            Text(&run.workspace),
            if run.verify { "verify: " } else { "" },
            Text(&run.code),
            Changes(run.changed),
            Span(Duration::from_millis(run.duration_ms)),
            Commit(run),
            Text(&run.run_id),
        );
    }
    page.push_str("</table></div>\n</section>\n");
}

/// Text that stays text within HTML, attributes included.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A commit's first digits.
struct Commit<'a>(&'a Record);

impl Display for Commit<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.commit {
            Some(commit) => write!(formatter, "<code>{}</code>", Text(commit.get(..10).unwrap_or(commit))),
            None => formatter.write_str("–"),
        }
    }
}

/// Added, modified and deleted files, where there are any.
struct Changes(Changed);

impl Display for Changes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changed { added, modified, deleted } = self.0;
        match added + modified + deleted {
            0 => formatter.write_str("–"),
            _ => write!(formatter, "+{added} ~{modified} −{deleted}"),
        }
    }
}

/// A number of things.
struct Count(usize, &'static str);

impl Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, name) = (self.0, self.1);
        if count == 1 { formatter.write_str(name) } else { write!(formatter, "{count} {name}s") }
    }
}

/// A duration in the units that a person thinks in.
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..10 => write!(formatter, "{:.1} s", self.0.as_secs_f64()),
            10..120 => write!(formatter, "{seconds} s"),
            120..7_200 => write!(formatter, "{} min", seconds / 60),
            7_200..172_800 => write!(formatter, "{} h", seconds / 3_600),
            _ => write!(formatter, "{} days", seconds / 86_400),
        }
    }
}

/// How far ahead something is, with its time for who points at it.
struct Ahead<'a> {
    text: &'a str,
    time: Option<Duration>,
}

impl<'a> Ahead<'a> {
    fn new(text: &'a str, now: SystemTime) -> Self {
        Self { text, time: time_of(text).and_then(|then| then.duration_since(now).ok()) }
    }
}

impl Display for Ahead<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Text(self.text);
        match self.time {
            Some(time) => write!(formatter, "<time title=\"{text}\">in {}</time>", Span(time)),
            None => write!(formatter, "{text}"),
        }
    }
}

/// How long ago something was, with its time for who points at it.
struct Ago<'a> {
    text: &'a str,
    time: Option<Duration>,
}

impl<'a> Ago<'a> {
    fn new(text: &'a str, now: SystemTime) -> Self {
        // What lies ahead of a clock that was set back is as good as now.
        let time = time_of(text).map(|then| now.duration_since(then).unwrap_or_default());
        Self { text, time }
    }
}

impl Display for Ago<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Text(self.text);
        match self.time.map(|time| time.as_secs()) {
            Some(0) => write!(formatter, "<time title=\"{text}\">just now</time>"),
            Some(seconds @ 1..10) => write!(formatter, "<time title=\"{text}\">{seconds} s ago</time>"),
            Some(seconds) => {
                write!(formatter, "<time title=\"{text}\">{} ago</time>", Span(Duration::from_secs(seconds)))
            }
            None => write!(formatter, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shown: impl Display, expected: &str) {
        assert_eq!(shown.to_string(), expected);
    }

    #[test]
    fn text_stays_text() {
        check(Text("<a href='x'>&\"é"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;é");
    }

    #[test]
    fn times_are_told_as_a_person_would() {
        let milliseconds = |time| Span(Duration::from_millis(time));
        check(milliseconds(9_949), "9.9 s");
        check(milliseconds(10_000), "10 s");
        check(milliseconds(119_999), "119 s");
        check(milliseconds(120_000), "2 min");
        check(milliseconds(7_200_000), "2 h");
        check(milliseconds(172_800_000), "2 days");
        let now = time_of("2026-11-22T18:00:00Z").unwrap();
        let ago = |text| Ago::new(text, now);
        check(ago("2026-11-22T18:00:00Z"), "<time title=\"2026-11-22T18:00:00Z\">just now</time>");
        check(ago("2026-11-22T18:00:09Z"), "<time title=\"2026-11-22T18:00:09Z\">just now</time>");
        check(ago("2026-11-22T17:59:51Z"), "<time title=\"2026-11-22T17:59:51Z\">9 s ago</time>");
        check(ago("2026-11-22T17:50:00Z"), "<time title=\"2026-11-22T17:50:00Z\">10 min ago</time>");
        check(ago("<noise>"), "&lt;noise&gt;");
    }

    #[test]
    fn a_picture_has_a_bar_for_each_run() {
        let bar = |success, duration_ms| Bar { success, duration_ms };
        let mut page = String::new();
        write_picture(&mut page, &[bar(true, 0), bar(false, 400)]);
        assert!(page.contains("<rect class=\"good\" x=\"1\" y=\"57\" width=\"8\" height=\"3\"/>"), "{page}");
        assert!(page.contains("<rect class=\"bad\" x=\"11\" y=\"0\" width=\"8\" height=\"60\"/>"), "{page}");
        assert!(page.contains("the last 2 runs took 0.0 s to 0.4 s; 1 failed"), "{page}");
        page.clear();
        write_picture(&mut page, &[]);
        assert_eq!(page, "");
    }
}
