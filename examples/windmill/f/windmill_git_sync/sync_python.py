# Backs this workspace up: asks windmill-git-sync for a sync and waits for its end. A sync that fails fails the job.
#
# The token is the job's own. It sees what the job's user sees, so that should be an admin, and it is void when the job
# has ended.
#
# The script itself posts its failure: Windmill runs failure handlers of schedules in its Enterprise Edition alone.

import html
import json
import os
import urllib.error
import urllib.request


# api_token: the service's SYNC_API_TOKEN, where it has one. In a schedule: "$var:f/windmill_git_sync/api_token".
# webhook_url: of Slack, Mattermost or Rocket.Chat. In a schedule: "$var:f/windmill_git_sync/webhook_url".
def main(url: str = "http://windmill-git-sync:8080", api_token: str = "", webhook_url: str = ""):
    try:
        return sync(url, api_token)
    except Exception as error:
        if webhook_url:
            tell(webhook_url, error)
        raise


def tell(webhook_url: str, error: Exception):
    # Written by others: in a message, `&`, `<` and `>` would be links and calls.
    text = html.escape(f"Backup of workspace {os.environ['WM_WORKSPACE']} failed: {error}", quote=False)
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(webhook_url, json.dumps({"text": text}).encode(), headers)
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except OSError as reason:
        # What failed is what the job fails with, also where the chat cannot be told.
        print(f"the webhook was not told: {reason}")


def sync(url: str, api_token: str):
    headers = {"Content-Type": "application/json"}
    if api_token:
        headers["Authorization"] = "Bearer " + api_token
    body = {"workspace": os.environ["WM_WORKSPACE"], "windmill_token": os.environ["WM_TOKEN"]}
    request = urllib.request.Request(url + "/sync", json.dumps(body).encode(), headers)
    try:
        # No time-out: the service has a limit of its own, SYNC_TIMEOUT.
        with urllib.request.urlopen(request) as response:
            status, answer = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, answer = error.code, error.read()
    try:
        result = json.loads(answer)
    except ValueError:
        raise Exception(f"{url} answered with status {status}, and not as windmill-git-sync does") from None
    if result.get("success") is not True:
        raise Exception(f"{result.get('code')}: {result.get('message')}")
    for warning in result.get("warnings", []):
        print(warning)
    return result
