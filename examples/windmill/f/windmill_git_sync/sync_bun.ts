// Backs up this workspace: asks windmill-git-sync for a sync and waits until it ends. If the sync fails, the job fails.
//
// The token is that of the job. It has the rights of the job's user, who should be an admin, and it is invalid after
// the job has ended.
//
// The script itself posts its failure: Windmill runs failure handlers of schedules only in its Enterprise Edition.

export async function main(
  url: string = "http://windmill-git-sync:8080",
  // The service's SYNC_API_TOKEN, if it has one. In a schedule: "$var:f/windmill_git_sync/api_token".
  api_token: string = "",
  // An incoming webhook of Slack, Mattermost or Rocket.Chat. In a schedule: "$var:f/windmill_git_sync/webhook_url".
  webhook_url: string = "",
) {
  try {
    return await sync(url, api_token);
  } catch (error) {
    // The job fails with the error of the sync, even if the webhook cannot be called.
    if (webhook_url) await tell(webhook_url, error).catch((reason) => console.error(`the webhook did not get the message: ${reason}`));
    throw error;
  }
}

async function tell(webhook_url: string, error: unknown) {
  const text = `Backup of workspace ${process.env.WM_WORKSPACE} failed: ${error instanceof Error ? error.message : error}`;
  // Others wrote this text: in a message, `&`, `<` and `>` would become links and mentions.
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const response = await fetch(webhook_url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: escaped }),
    signal: AbortSignal.timeout(30_000),
  });
  if (!response.ok) throw new Error(`it answered with status ${response.status}`);
}

async function sync(url: string, api_token: string) {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (api_token) headers["Authorization"] = `Bearer ${api_token}`;
  const options: RequestInit & { timeout: boolean } = {
    method: "POST",
    headers,
    body: JSON.stringify({ workspace: process.env.WM_WORKSPACE, windmill_token: process.env.WM_TOKEN }),
    // Without this, Bun gives up after five minutes. The service has its own limit, SYNC_TIMEOUT.
    timeout: false,
  };
  const response = await fetch(`${url}/sync`, options);
  const answer = await response.text();
  let result;
  try {
    result = JSON.parse(answer);
  } catch {
    throw new Error(`${url} answered with status ${response.status}, and not as windmill-git-sync does`);
  }
  if (!response.ok || result.success !== true) throw new Error(`${result.code}: ${result.message}`);
  for (const warning of result.warnings ?? []) console.warn(warning);
  return result;
}
