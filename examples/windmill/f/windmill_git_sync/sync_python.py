# Backs this workspace up: asks windmill-git-sync for a sync and waits for its end. A sync that fails fails the job.
#
# The token is the job's own. It sees what the job's user sees, so that should be an admin, and it is void when the job
# has ended.

import json
import os
import urllib.error
import urllib.request


# api_token: the service's SYNC_API_TOKEN, where it has one. In a schedule: "$var:f/windmill_git_sync/api_token".
def main(url: str = "http://windmill-git-sync:8080", api_token: str = ""):
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
