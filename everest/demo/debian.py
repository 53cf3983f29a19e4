"""Programs of Debian's unstable suite, unpacked into the cache and run through their own loader.

Nothing is installed on the machine: packages are fetched by apt with folders of its own and unpacked with
dpkg-deb, so it needs no root, and works wherever apt and dpkg-deb are.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
USELESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl", "usr/lib/x86_64-linux-gnu/perl")


class Unavailable(Exception):
    """A program that is needed cannot be had here; the message says exactly what to install."""


def cache() -> Path:
    """Where downloads are kept: EVEREST_CACHE, or ~/.cache/everest."""
    folder = Path(os.environ.get("EVEREST_CACHE") or Path.home() / ".cache" / "everest")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time fills a place in the cache."""
    with open(cache() / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def unpacked(name: str, packages: Sequence[str], say: Callable[[str], object]) -> Path:
    """The cache's folder with these packages and all they need; fetched at the first call.

    Raises:
        Unavailable: not a Debian-like machine, or the mirror cannot be reached.
    """
    root = cache() / name
    with locked(name):
        if not root.exists():
            _fetch(root, packages, say)
    return root


def command(root: Path, program: str) -> list[str]:
    """The argv that runs a program of `root` with the libraries of `root`."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    for folder in ("usr/sbin", "usr/bin"):
        if (root / folder / program).exists():
            loader = str(libraries / "ld-linux-x86-64.so.2")
            return [loader, "--library-path", str(libraries), str(root / folder / program)]
    raise Unavailable(f"{program} is not in {root}. Delete that folder; the next run fetches it again.")


def _fetch(root: Path, packages: Sequence[str], say: Callable[[str], object]) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("This machine has no apt-get and dpkg-deb to fetch Debian's packages with.")
    say(f"Fetching {', '.join(packages)} from Debian's unstable suite into {root} (once)")
    work = root.with_name(root.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    try:
        debs = _download(work / "apt", packages)
        for deb in debs:
            subprocess.run(["dpkg-deb", "-x", str(deb), str(work / "root")], check=True)
    except subprocess.CalledProcessError as error:
        why = (error.stderr or "").strip() or f"{error.cmd[0]} ended with {error.returncode}"
        raise Unavailable(f"{', '.join(packages)} could not be fetched: {why}") from error
    for folder in USELESS:
        shutil.rmtree(work / "root" / folder, ignore_errors=True)
    (work / "root").rename(root)
    shutil.rmtree(work)


def _mirror() -> str:
    """The mirror that this machine's apt already uses, else everybody's."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    found = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    mirrors = [uri for uri in found if "security" not in uri]
    return mirrors[0] if mirrors else MIRROR


def _download(work: Path, packages: Sequence[str]) -> list[Path]:
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb {_mirror()} sid main\n")
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::Check-Valid-Until": "false",  # a mirror may lag; signatures are checked all the same
    }
    apt = ["apt-get", "-qq", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    subprocess.run([*apt, "update"], check=True, capture_output=True, text=True)
    install = [*apt, "--yes", "--download-only", "install", *packages]
    subprocess.run(install, check=True, capture_output=True, text=True)
    return sorted((work / "cache/archives").glob("*.deb"))
