# Backs this workspace up: asks windmill-git-sync for a sync and waits for its end. A sync that fails fails the job.
#
# The token is the job's own. It sees what the job's user sees, so that should be an admin, and it is void when the job
# has ended.

url="${1:-http://windmill-git-sync:8080}"
# The service's SYNC_API_TOKEN, where it has one. In a schedule: "$var:f/windmill_git_sync/api_token".
api_token="${2:-}"

# All that is secret goes by a pipe: an argument list is readable by every process.
request() {
  printf 'header = "Content-Type: application/json"\n'
  if [ -n "$api_token" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$api_token"
  fi
  printf 'data = "{\\"workspace\\":\\"%s\\",\\"windmill_token\\":\\"%s\\"}"\n' "$WM_WORKSPACE" "$WM_TOKEN"
}
answer=$(request | curl --silent --show-error --write-out '\n%{http_code}' --config - "$url/sync") || exit 1
status=${answer##*$'\n'}
result=${answer%$'\n'*}

# In Windmill the last line is the result of a script in Bash.
if [ "$status" != 200 ]; then
  echo "status $status: $result" >&2
  exit 1
fi
echo "$result"
