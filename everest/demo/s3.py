"""An S3 emulator on loopback for the demo and the fast tests: MiniStack, in a virtual environment of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from everest.demo import debian, servers

VERSION = "1.5.33"
START_SECONDS = 30
ROOT = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


def installed(say: Callable[[str], object] = print) -> Path:
    """The Python of the emulator's virtual environment in the cache; made at the first call.

    Raises:
        debian.Unavailable: pip could not install it.
    """
    name = f"ministack-{VERSION}"
    root = debian.cache() / name
    with debian.locked(name):
        if not root.exists():
            say(f"Installing the S3 emulator ministack {VERSION} into {root} (once)")
            _install(root)
    return root / "bin" / "python"


def _install(root: Path) -> None:
    work = root.with_name(root.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    for argv in (
        [sys.executable, "-m", "venv", str(work)],
        [str(work / "bin" / "python"), "-m", "pip", "install", "--quiet", f"ministack=={VERSION}"],
    ):
        ran = subprocess.run(argv, capture_output=True, text=True)
        if ran.returncode:
            raise debian.Unavailable(f"The S3 emulator could not be installed: {ran.stderr.strip()[-500:]}")
    work.rename(root)


@dataclass
class S3:
    """A running S3 server and one account of it.  folder: where it keeps objects, None for memory only."""

    port: int
    folder: Path | None = None
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    region: str = "us-east-1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process, "the emulator is not running"
        return self.process.pid

    def client(self) -> Any:
        """A boto3 client of the account."""
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return self._client("s3", keys, Config(s3={"addressing_style": "path"}))

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"everest-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def run(self) -> None:
        """Start on the same port; objects in memory are gone after a stop."""
        settings = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "AUTH": "true",
            "SERVICES": "s3,iam,sts",
            "LOG_LEVEL": "WARNING",
            "HOME": tempfile.gettempdir(),
            "PATH": os.environ["PATH"],
        }
        if self.folder:
            settings |= {"S3_PERSIST": "1", "S3_DATA_DIR": str(self.folder), "PERSIST_STATE": "0"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        argv = [str(installed()), "-m", "ministack"]
        self.process = subprocess.Popen(argv, env=settings, start_new_session=True, **quiet)  # type: ignore[call-overload]
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise debian.Unavailable(f"The S3 emulator did not start on port {self.port}.")
            time.sleep(0.05)
        self._make_account()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def _make_account(self) -> None:
        """Only keys of an IAM user are checked: a wrong secret of any other is let in."""
        iam = self._client("iam", ROOT)
        iam.create_user(UserName="everest")
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="everest", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="everest")["AccessKey"]
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]

    def _client(self, service: str, keys: dict[str, str], config: Config | None = None) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint, region_name=self.region, config=config, **keys)


def start(folder: Path | None = None, say: Callable[[str], object] = print) -> S3:
    """Start the emulator on a free port with a fresh account."""
    installed(say)
    s3 = S3(servers.free_port(), folder)
    s3.run()
    return s3
