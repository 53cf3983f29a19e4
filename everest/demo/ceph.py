"""A real S3 server on loopback for the tests: Ceph's gateway over one monitor and one object daemon in memory."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from everest.demo import debian, servers

PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
START_SECONDS = 60
# Without ms_mon_client_mode the gateway loops on authentication; without the two paxos settings it starts in 13 s.
CONFIG = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{monitor}/0]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 4294967296
mon_allow_pool_size_one = true
ms_bind_ipv6 = false
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
plugin_dir = {libraries}/ceph
erasure_code_dir = {libraries}/ceph/erasure-code
osd_class_dir = {libraries}/rados-classes
[mon]
mon_data = {folder}/monitor
mon_cluster_log_file = {folder}/cluster.log
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[osd]
osd_data = {folder}/osd
[client]
ms_mon_client_mode = crc secure
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_dynamic_resharding = false
rgw_data = {folder}/gateway
"""


@dataclass
class Ceph:
    """A running gateway and one account of it.  It keeps objects in memory only."""

    root: Path
    folder: Path
    port: int
    access_key: str = "everest"
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    region: str = "us-east-1"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        return self._call("radosgw", "--version").split()[2]

    def client(self) -> Any:
        """A boto3 client of the account."""
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        config = Config(s3={"addressing_style": "path"})
        return boto3.client("s3", endpoint_url=self.endpoint, region_name=self.region, config=config, **keys)

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"everest-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def start_gateway(self) -> None:
        """Start, or start again after a kill; the object daemon has kept the objects."""
        self._run("gateway", "radosgw", "-n", "client.admin", "-f")
        self._wait("the gateway", self._answers)

    def kill_gateway(self) -> None:
        self._kill("gateway")

    def stop(self) -> None:
        for name in ("gateway", "osd", "monitor"):
            self._kill(name)

    def start(self) -> None:
        fsid, monitor = str(uuid.uuid4()), servers.free_port()
        values = {"fsid": fsid, "monitor": monitor, "port": self.port, "folder": self.folder}
        self._config.write_text(CONFIG.format(**values, libraries=self._libraries))
        monmap = str(self.folder / "monmap")
        self._call("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{monitor}]", "--fsid", fsid, monmap)
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._run("monitor", "ceph-mon", "-i", "a", "-f")
        self._start_osd()
        self.start_gateway()
        self._call("radosgw-admin", "user", "create", "--uid", "everest", "--display-name", "everest",
                   "--access-key", self.access_key, "--secret-key", self.secret_key)  # fmt: skip

    def _start_osd(self) -> None:
        name = str(uuid.uuid4())
        self._ceph("osd", "new", name)
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", name)
        self._ceph("osd", "crush", "add", "osd.0", "1", "root=default", "host=here")
        self._run("osd", "ceph-osd", "-i", "0", "-f")
        self._wait("the object daemon", lambda: "1 up" in self._ceph("osd", "stat"))

    @property
    def _config(self) -> Path:
        return self.folder / "ceph.conf"

    @property
    def _libraries(self) -> Path:
        return self.root / "usr/lib/x86_64-linux-gnu"

    def _command(self, program: str, *arguments: str) -> list[str]:
        paths = f"{self._libraries}:{self._libraries}/ceph"
        where = next(path for path in self.root.glob(f"usr/*bin/{program}"))
        return [str(self._libraries / "ld-linux-x86-64.so.2"), "--library-path", paths, str(where), *arguments]

    def _call(self, program: str, *arguments: str) -> str:
        config = [] if program == "monmaptool" else ["-c", str(self._config)]
        return self._capture(self._command(program, *arguments, *config))

    def _ceph(self, *arguments: str) -> str:
        """The administration command: a Python program, run by the Python it was packaged with."""
        script = [str(self.root / "usr/bin/ceph"), "-c", str(self._config), "--connect-timeout", "10", *arguments]
        python = max((self.root / "usr/bin").glob("python3.1?")).name
        home = {"PYTHONHOME": str(self.root / "usr"), "PYTHONPATH": str(self.root / "usr/lib/python3/dist-packages")}
        return self._capture(self._command(python, *script), home)

    def _capture(self, argv: list[str], extra: dict[str, str] | None = None) -> str:
        environment = {**os.environ, **(extra or {})}
        ran = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=START_SECONDS)
        if ran.returncode:
            raise debian.Unavailable(f"Ceph did not start: {(ran.stderr or ran.stdout).strip()[-500:]}")
        return ran.stdout

    def _run(self, name: str, program: str, *arguments: str) -> None:
        argv = self._command(program, *arguments, "-c", str(self._config))
        with open(self.folder / f"{name}.out", "ab") as out:
            self.processes[name] = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)

    def _kill(self, name: str) -> None:
        """A gateway asked to end takes its time; nothing here outlives it, so it is killed."""
        process = self.processes.pop(name, None)
        if process:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self.processes.values()):
                self.stop()
                raise debian.Unavailable(f"Ceph did not start: {what} does not answer; its logs are in {self.folder}.")
            time.sleep(0.05)


def start(folder: Path, say: Callable[[str], object] = print) -> Ceph:
    """Start a cluster of one in `folder`, which is emptied.

    Raises:
        debian.Unavailable: its packages cannot be had, or it does not start.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "monitor").mkdir(parents=True)
    (folder / "osd").mkdir()
    ceph = Ceph(debian.unpacked("ceph-sid", PACKAGES, say), folder, servers.free_port())
    try:
        ceph.start()
    except BaseException:
        ceph.stop()
        raise
    return ceph
