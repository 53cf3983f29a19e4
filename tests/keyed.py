"""Servers with a key of their own, so that they can encrypt tables and binary log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from everest.demo.servers import Installation


def keyed(found: Installation, folder: Path) -> tuple[Installation, list[str]]:
    """What to start, and with which options, to have a server that encrypts its log; its key lies in the folder."""
    folder.mkdir(parents=True)
    if found.flavour == "mysql":
        return _mysql(found, folder)
    keys = folder / "keys"
    keys.write_text("1;770A8A65DA156D24EE2A093277530142\n")
    loaded = ["--plugin-load-add=file_key_management", f"--file-key-management-filename={keys}"]
    return found, [*loaded, "--encrypt-binlog=ON"]


def _mysql(found: Installation, folder: Path) -> tuple[Installation, list[str]]:
    """A keyring component is named by a file beside the program: a copy of the installation made of links."""
    assert found.root, "this needs the MySQL of the cache: one on the machine cannot be given a keyring"
    root, plugins = folder / "root", folder / "plugins"
    for path in (found.root / "usr").iterdir():
        if path.name != "sbin":
            _link(root / "usr" / path.name, path)
    _link(root / "usr/sbin/mysqld", found.root / "usr/sbin/mysqld")
    (root / "usr/sbin/mysqld.my").write_text(json.dumps({"components": "file://component_keyring_file"}))
    for path in (found.root / "usr/lib/mysql/plugin").iterdir():
        _link(plugins / path.name, path)
    settings = {"path": str(folder / "ring"), "read_only": False}
    (plugins / "component_keyring_file.cnf").write_text(json.dumps(settings))
    return replace(found, root=root), [f"--plugin-dir={plugins}", "--binlog-encryption=ON"]


def _link(new: Path, old: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    new.symlink_to(old)
