"""What holds of the WebAssembly builds: python tests/wasi/facts.py FOLDER, where FOLDER has a folder for each target.

wasm32-wasip1 runs under Node's WASI, wasm32-wasip2 under wasmtime. Unit tests run there too; see `.ci/run`.
"""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = "debug/windmill-git-sync.wasm"
# A busy machine takes seconds to compile the program before it runs.
PATIENCE = 120
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

    def test_serve_says_that_it_cannot_listen(self):
        code, _, err = self.run_program("serve", "--listen", "127.0.0.1:0")
        self.assertEqual(code, 1)
        self.assertIn("cannot listen on", err)


class Wasip1(OnEither, unittest.TestCase):
    target = "wasm32-wasip1"


class Wasip2(OnEither, unittest.TestCase):
    target = "wasm32-wasip2"


if __name__ == "__main__":
    targets = Path(sys.argv.pop(1))
    unittest.main(verbosity=2)
