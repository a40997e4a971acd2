"""What holds of the WebAssembly builds: python tests/wasi/facts.py FOLDER, where FOLDER has a folder for each target.

wasm32-wasip1 runs under Node's WASI, wasm32-wasip2 under wasmtime. Unit tests run there too; see `.ci/run`.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = "debug/windmill-git-sync.wasm"
# A busy machine takes seconds to compile the program before it runs.
PATIENCE = 120
# Of the service itself; from the connection to the end of the head.
HEAD_TIMEOUT = 5
SETTINGS = {"WINDMILL_TOKEN": "hunter2", "GIT_REMOTE_URL": "https://git.example/shop.git", "GIT_TOKEN": "hunter3"}

targets = Path("target")


def command(target, *arguments):
    runner = {
        "wasm32-wasip1": ["node", "--no-warnings", HERE / "node.mjs"],
        "wasm32-wasip2": [sys.executable, HERE / "component.py"],
    }[target]
    return [*runner, targets / target / PROGRAM, *arguments]


def environment(settings):
    return {"PATH": os.environ["PATH"], **settings}


def run(target, *arguments, **settings):
    """Exit code, standard output, standard error."""
    ended = subprocess.run(
        command(target, *arguments),
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "hunter" not in ended.stdout + ended.stderr, "a secret was shown"
    return ended.returncode, ended.stdout, ended.stderr


class OnEither:
    """What both targets can do. wasmtime tells success from failure only, where Node tells the exit code."""

    def assert_exit(self, found, expected):
        self.assertEqual(found, expected if self.target == "wasm32-wasip1" else min(expected, 1))

    def run_program(self, *arguments, **settings):
        return run(self.target, *arguments, **settings)

    def test_the_version_is_told(self):
        code, out, _ = self.run_program("--version")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"\Awindmill-git-sync \d+\.\d+\.\d+\n\Z")

    def test_help_works_everywhere(self):
        for arguments in (["--help"], ["serve", "--help"], ["sync", "--help"], ["check", "--help"]):
            code, out, _ = self.run_program(*arguments)
            self.assertEqual((code, out[:6]), (0, "Usage:"), arguments)

    def test_a_usage_error_prints_the_usage(self):
        code, out, err = self.run_program("sync", "--colour", "blue")
        self.assert_exit(code, 2)
        self.assertEqual(out, "")
        self.assertIn("Usage:", err)

    def test_check_tells_that_the_settings_are_right_and_what_was_not_tried(self):
        code, out, _ = self.run_program("check", "--json", **SETTINGS)
        self.assertEqual(code, 0)
        checks = {check["name"]: check for check in json.loads(out)["checks"]}
        self.assertEqual(checks["settings"]["status"], "ok")
        for name in ("data_dir", "wmill", "git", "windmill", "remote"):
            self.assertEqual(checks[name]["status"], "warning")
            self.assertIn("not tried", checks[name]["message"])

    def test_check_names_all_that_is_wrong(self):
        wrong = {**SETTINGS, "GIT_TOKEN": "", "LISTEN_ADDR": "nowhere", "SYNC_SCHEDULE": "often"}
        code, out, _ = self.run_program("check", **wrong)
        self.assert_exit(code, 2)
        for name in ("GIT_TOKEN", "LISTEN_ADDR", "SYNC_SCHEDULE"):
            self.assertIn(name, out)
        code, out, _ = self.run_program("check", "--branch", "a..b", **SETTINGS)
        self.assert_exit(code, 2)
        self.assertIn("--branch", out)

    def test_a_sync_says_that_it_cannot_be(self):
        code, out, _ = self.run_program("sync", **SETTINGS)
        self.assertEqual(code, 1)
        result = json.loads(out)
        self.assertEqual((result["success"], result["code"]), (False, "internal"))
        self.assertIn("WebAssembly", result["message"])


class Wasip1(OnEither, unittest.TestCase):
    target = "wasm32-wasip1"

    def test_serve_says_that_there_is_no_network(self):
        code, _, err = self.run_program("serve")
        self.assertEqual(code, 1)
        self.assertIn("cannot listen on", err)


class Service:
    """`serve` under wasmtime, on a port that the system chose."""

    def __init__(self, **settings):
        self.process = subprocess.Popen(
            command("wasm32-wasip2", "serve", "--listen", "127.0.0.1:0"),
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        kill = threading.Timer(PATIENCE, self.process.kill)
        kill.start()
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if " listening on " in line:
                self.port = int(line.rsplit(":", 1)[1])
                break
        else:
            raise AssertionError("it does not listen:\n" + "".join(self.log))
        kill.cancel()
        # Who does not read on stops the service at its next line.
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def end(self):
        self.process.kill()
        self.process.wait()

    def ask(self, method, path, body=None, **headers):
        """Status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = answer.status, answer.headers, answer.read().decode()
        connection.close()
        return found

    def connect(self, sent):
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        stream.sendall(sent)
        return stream


class Wasip2(OnEither, unittest.TestCase):
    target = "wasm32-wasip2"

    @classmethod
    def setUpClass(cls):
        cls.service = Service()
        cls.addClassCleanup(cls.service.end)
        cls.guarded = Service(SYNC_API_TOKEN="hunter2")
        cls.addClassCleanup(cls.guarded.end)

    def assert_error(self, answer, status, code):
        self.assertEqual(answer[0], status)
        error = json.loads(answer[2])
        self.assertEqual(list(error), ["success", "code", "message"])
        self.assertEqual((error["success"], error["code"]), (False, code))

    def test_health_is_told(self):
        status, headers, body = self.service.ask("GET", "/health")
        self.assertEqual((status, json.loads(body)["status"]), (200, "ok"))
        head = self.service.ask("HEAD", "/health")
        self.assertEqual((head[0], head[1]["Content-Length"], head[2]), (200, headers["Content-Length"], ""))

    def test_metrics_count_what_was_asked(self):
        self.service.ask("GET", "/nowhere")
        status, _, body = self.service.ask("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertRegex(body, r'(?m)^windmill_git_sync_http_requests_total\{path="other",status="404"\} [1-9]')
        self.assertRegex(body, r"(?m)^windmill_git_sync_build_info\{version=")

    def test_the_other_pages_are_there(self):
        self.assertEqual(self.service.ask("GET", "/ready")[0], 200)
        self.assertEqual(json.loads(self.service.ask("GET", "/status")[2])["runs"], [])
        self.assertIn("<!doctype html>", self.service.ask("GET", "/")[2])

    def test_a_sync_is_answered_501(self):
        bodies = [None, "", "{}", json.dumps({"workspace": "shop", "wait": False})]
        for body in bodies:
            answer = self.service.ask("POST", "/sync", body, Content_Type="application/json")
            self.assert_error(answer, 501, "internal")
            self.assertIn("WebAssembly", json.loads(answer[2])["message"])
        # It is the last answer of those that there are: what is refused elsewhere is refused here.
        self.assert_error(self.service.ask("POST", "/sync", "{}", Content_Type="text/plain"), 415, "request_invalid")
        answer = self.service.ask("GET", "/sync")
        self.assert_error(answer, 405, "request_invalid")
        self.assertEqual(answer[1]["Allow"], "POST")
        self.assert_error(self.service.ask("GET", "/nowhere"), 404, "request_invalid")

    def test_the_token_is_asked_for(self):
        self.assertEqual(self.guarded.ask("GET", "/health")[0], 200)
        for method, path in (("POST", "/sync"), ("GET", "/metrics"), ("GET", "/status")):
            self.assert_error(self.guarded.ask(method, path), 401, "unauthorized")
            answer = self.guarded.ask(method, path, Authorization="Bearer hunter2")
            self.assertEqual(answer[0], 501 if method == "POST" else 200)

    def test_what_could_be_read_in_two_ways_is_refused(self):
        for sent, status in (
            (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET /health HTTP/1.1\nHost: a\n\n", 400),
            (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
            (b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413),
        ):
            with self.service.connect(sent) as stream:
                self.assertEqual(stream.recv(12), b"HTTP/1.1 %d" % status, sent)

    def test_who_is_slow_is_cut_off_and_the_next_is_served(self):
        begun = time.monotonic()
        with self.service.connect(b"GET /health HTTP/1.1\r\n") as slow:
            self.assertEqual(self.service.ask("GET", "/health")[0], 200)
            self.assertEqual(slow.recv(12), b"HTTP/1.1 408")
        self.assertGreater(time.monotonic() - begun, HEAD_TIMEOUT - 1)

    def test_a_crowd_is_served_one_by_one(self):
        with ThreadPoolExecutor(50) as crowd:
            statuses = list(crowd.map(lambda _: self.service.ask("GET", "/health")[0], range(200)))
        self.assertEqual(statuses, [200] * 200)

    def test_healthcheck_asks_the_service(self):
        listening = f"127.0.0.1:{self.service.port}"
        self.assertEqual(self.run_program("healthcheck", "--listen", listening)[0], 0)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            silent = "%s:%d" % nobody.getsockname()
            self.assertEqual(self.run_program("healthcheck", "--listen", silent)[0], 1)

    def test_who_listens_already_is_not_joined(self):
        code, _, err = self.run_program("serve", "--listen", f"127.0.0.1:{self.service.port}")
        self.assertEqual(code, 1)
        self.assertIn("cannot listen on", err)


if __name__ == "__main__":
    targets = Path(sys.argv.pop(1))
    unittest.main(verbosity=2)
