# Backs up this workspace: asks windmill-git-sync for a sync and waits until it ends. If the sync fails, the job fails.
#
# The token is that of the job. It has the rights of the job's user, who should be an admin, and it is invalid after
# the job has ended.
#
# The script itself posts its failure: Windmill runs failure handlers of schedules only in its Enterprise Edition.

url="${1:-http://windmill-git-sync:8080}"
# The service's SYNC_API_TOKEN, if it has one. In a schedule: "$var:f/windmill_git_sync/api_token".
api_token="${2:-}"
# An incoming webhook of Slack, Mattermost or Rocket.Chat. In a schedule: "$var:f/windmill_git_sync/webhook_url".
webhook_url="${3:-}"

# Secrets go through a pipe, because every process can read an argument list.
request() {
  printf 'header = "Content-Type: application/json"\n'
  if [ -n "$api_token" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$api_token"
  fi
  printf 'data = "{\\"workspace\\":\\"%s\\",\\"windmill_token\\":\\"%s\\"}"\n' "$WM_WORKSPACE" "$WM_TOKEN"
}

# Reports the reason to the chat, and fails the job.
fail() {
  echo "$1" >&2
  if [ -n "$webhook_url" ]; then
    # Others wrote this text: in a message, `&`, `<` and `>` would become links and mentions.
    text=$(printf '%s' "Backup of workspace $WM_WORKSPACE failed: $1" | tr '[:cntrl:]' ' ' |
      sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/\\/\\\\/g; s/"/\\"/g')
    # curl's configuration requires `\` and `"` to be escaped once more.
    body=$(printf '{"text":"%s"}' "$text" | sed 's/\\/\\\\/g; s/"/\\"/g')
    printf 'url = "%s"\nheader = "Content-Type: application/json"\ndata = "%s"\n' "$webhook_url" "$body" |
      curl --silent --show-error --fail --max-time 30 --output /dev/null --config - ||
      echo "the webhook did not get the message" >&2
  fi
  exit 1
}

answer=$(request | curl --silent --show-error --write-out '\n%{http_code}' --config - "$url/sync" 2>&1) ||
  fail "no answer from $url: $answer"
status=${answer##*$'\n'}
result=${answer%$'\n'*}

# In Windmill, the last line of output is the result of a Bash script.
if [ "$status" != 200 ]; then
  fail "status $status: $result"
fi
echo "$result"
