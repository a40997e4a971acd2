# Backs up this workspace: asks windmill-git-sync for a sync and waits until it ends. If the sync fails, the job fails.
#
# The token is that of the job. It has the rights of the job's user, who should be an admin, and it is invalid after
# the job has ended.
#
# The script itself posts its failure: Windmill runs failure handlers of schedules only in its Enterprise Edition.

import html
import json
import os
import urllib.error
import urllib.request


# api_token: the service's SYNC_API_TOKEN, if it has one. In a schedule: "$var:f/windmill_git_sync/api_token".
# webhook_url: an incoming webhook of Slack, Mattermost or Rocket.Chat. In a schedule:
# "$var:f/windmill_git_sync/webhook_url".
def main(url: str = "http://windmill-git-sync:8080", api_token: str = "", webhook_url: str = ""):
    try:
        return sync(url, api_token)
    except Exception as error:
        if webhook_url:
            tell(webhook_url, error)
        raise


def tell(webhook_url: str, error: Exception):
    # Others wrote this text: in a message, `&`, `<` and `>` would become links and mentions.
    text = html.escape(f"Backup of workspace {os.environ['WM_WORKSPACE']} failed: {error}", quote=False)
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(webhook_url, json.dumps({"text": text}).encode(), headers)
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except OSError as reason:
        # The job fails with the error of the sync, even if the webhook cannot be called.
        print(f"the webhook did not get the message: {reason}")


def sync(url: str, api_token: str):
    headers = {"Content-Type": "application/json"}
    if api_token:
        headers["Authorization"] = "Bearer " + api_token
    body = {"workspace": os.environ["WM_WORKSPACE"], "windmill_token": os.environ["WM_TOKEN"]}
    request = urllib.request.Request(url + "/sync", json.dumps(body).encode(), headers)
    try:
        # No timeout: the service has its own limit, SYNC_TIMEOUT.
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
