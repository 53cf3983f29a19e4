"""Everest's own programs as the demo runs them: manage.py commands, and the web server and workers beside them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STOP_SECONDS = 60


class StepFailed(Exception):
    """A step of the demo did not do what it must; the message says what it said."""


class Manage:
    """Runs `manage.py` against the metadata in `folder`, and remembers the pids of what it started there."""

    def __init__(self, folder: Path, say: Callable[[str], object]) -> None:
        self.folder, self.say = folder, say
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "EVEREST_DATA": str(folder / "data"),
            "EVEREST_LOCAL_ROOT": str(folder / "storages"),
            "EVEREST_HTTPS": "0",
            "EVEREST_TICK_SECONDS": "2",
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def __call__(self, command: str, *arguments: str, quiet: bool = False, **environment: str) -> str:
        """Run a command to its end and return what it printed; its secrets are in its environment alone."""
        if not quiet:
            self.say(f"  $ manage.py {shlex.join([command, *arguments])}")
        argv = [sys.executable, "manage.py", command, *arguments]
        ran = subprocess.run(argv, env=self.environment | environment, capture_output=True, text=True)
        if ran.returncode:
            said = (ran.stderr or ran.stdout).strip()[-1500:]
            raise StepFailed(f"manage.py {command} ended with {ran.returncode}: {said}")
        return ran.stdout

    def until_listed(
        self, command: str, *arguments: str, holding: str = "", timeout: float = 60
    ) -> list[dict[str, Any]]:
        """Ask again until the command lists something, a line with `holding` in it; those lines, read."""
        deadline = time.monotonic() + timeout
        self.say(f"  $ manage.py {shlex.join([command, *arguments])}")
        while True:
            listed = self(command, *arguments, "--json", quiet=True).splitlines()
            if lines := [line for line in listed if holding in line]:
                return [json.loads(line) for line in lines]
            self.check_alive()
            if time.monotonic() > deadline:
                raise StepFailed(f"manage.py {command} listed nothing within {timeout:g} s.")
            time.sleep(0.2)

    def start(self, name: str, *arguments: str) -> None:
        """Start a program beside; its output goes to a log in the folder."""
        with open(self.folder / f"{name}.log", "wb") as log:
            argv = [sys.executable, *arguments]
            process = subprocess.Popen(argv, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.started[name] = process
        self.remember(name, process.pid)

    def remember(self, name: str, pid: int) -> None:
        """So that a later run can end it where this one was killed."""
        (self.folder / f"{name}.pid").write_text(str(pid))

    def check_alive(self) -> None:
        for name, process in self.started.items():
            if process.poll() is not None:
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                raise StepFailed(f"{name} ended with {process.returncode}: {log[-1500:]}")

    def end(self) -> None:
        """Ask everything that was started to stop, and wait for it."""
        for process in self.started.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name, process in self.started.items():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def end_left_behind(self) -> None:
        """End what a run that was killed had started, where those pids still are Everest's."""
        for path in self.folder.glob("*.pid"):
            pid = int(path.read_text())
            if self._ours(pid):
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + STOP_SECONDS
                while self._ours(pid) and time.monotonic() < deadline:
                    time.sleep(0.1)

    def _ours(self, pid: int) -> bool:
        try:
            return str(self.folder).encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False
