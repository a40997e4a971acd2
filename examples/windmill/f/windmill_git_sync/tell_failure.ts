// The failure handler of the schedule, for Windmill's Enterprise Edition: the Community Edition never runs it, and the
// scripts post their failures themselves. It also reports a job that failed before the script started, such as one that
// no worker took in time.

export async function main(
  schedule_path: string = "",
  path: string = "",
  error: { name?: string; message?: string } = {},
  // An incoming webhook of Slack, Mattermost or Rocket.Chat. In the schedule, as one of `on_failure_extra_args`:
  // "$var:f/windmill_git_sync/webhook_url".
  webhook_url: string = "",
) {
  const text = `Backup by ${schedule_path || path} in ${process.env.WM_WORKSPACE} failed: ${error.message ?? JSON.stringify(error)}`;
  if (webhook_url) {
    // Others wrote this text: in a message, `&`, `<` and `>` would become links and mentions.
    const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
    const response = await fetch(webhook_url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: escaped }),
      signal: AbortSignal.timeout(30_000),
    });
    if (!response.ok) throw new Error(`the webhook answered with status ${response.status}`);
  }
  return text;
}
