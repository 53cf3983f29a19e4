"""What a backup holds comes back byte for byte: every type, charset and kind of object, on both flavours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import compare, dump_all, source_config, target_config
from tests.servers import everything
from tests.servers.backups import archive_in, back_up, put_back


@pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
def test_everything_comes_back_as_it_was(flavour: str, request: Any, tmp_path: Path) -> None:
    source, target = (request.getfixturevalue(f"{flavour}_{role}") for role in ("source", "target"))
    everything.fill(source)
    archive = archive_in(tmp_path)
    manifest = back_up(source_config(source, tls="off"), archive)
    counts = put_back(target_config(target, tls="off"), target, archive, manifest)
    assert compare(dump_all(source.connect()), dump_all(target.connect())) == []
    assert counts.broken == ()
    assert counts.rows == manifest.rows > 40
