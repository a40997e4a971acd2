# Backs this workspace up: asks windmill-git-sync for a sync and waits for its end. A sync that fails fails the job.
#
# The token is the job's own. It sees what the job's user sees, so that should be an admin, and it is void when the job
# has ended.
#
# The script itself posts its failure: Windmill runs failure handlers of schedules in its Enterprise Edition alone.

url="${1:-http://windmill-git-sync:8080}"
# The service's SYNC_API_TOKEN, where it has one. In a schedule: "$var:f/windmill_git_sync/api_token".
api_token="${2:-}"
# An incoming webhook of Slack, Mattermost or Rocket.Chat. In a schedule: "$var:f/windmill_git_sync/webhook_url".
webhook_url="${3:-}"

# All that is secret goes by a pipe: an argument list is readable by every process.
request() {
  printf 'header = "Content-Type: application/json"\n'
  if [ -n "$api_token" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$api_token"
  fi
  printf 'data = "{\\"workspace\\":\\"%s\\",\\"windmill_token\\":\\"%s\\"}"\n' "$WM_WORKSPACE" "$WM_TOKEN"
}

# Says why in the chat, and fails the job.
fail() {
  echo "$1" >&2
  if [ -n "$webhook_url" ]; then
    # Written by others: in a message, `&`, `<` and `>` would be links and calls.
    text=$(printf '%s' "Backup of workspace $WM_WORKSPACE failed: $1" | tr '[:cntrl:]' ' ' |
      sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/\\/\\\\/g; s/"/\\"/g')
    # In the configuration of curl, `\` and `"` are escaped once more.
    body=$(printf '{"text":"%s"}' "$text" | sed 's/\\/\\\\/g; s/"/\\"/g')
    printf 'url = "%s"\nheader = "Content-Type: application/json"\ndata = "%s"\n' "$webhook_url" "$body" |
      curl --silent --show-error --fail --max-time 30 --output /dev/null --config - ||
      echo "the webhook was not told" >&2
  fi
  exit 1
}

answer=$(request | curl --silent --show-error --write-out '\n%{http_code}' --config - "$url/sync" 2>&1) ||
  fail "no answer from $url: $answer"
status=${answer##*$'\n'}
result=${answer%$'\n'*}

# In Windmill the last line is the result of a script in Bash.
if [ "$status" != 200 ]; then
  fail "status $status: $result"
fi
echo "$result"
