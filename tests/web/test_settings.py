"""Settings come from the environment; a value that makes no sense stops the start with a sentence."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from everest import env

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda: env.flag("EVEREST_X", True), "maybe"),
        (lambda: env.number("EVEREST_X", 1), "ten"),
        (lambda: env.number("EVEREST_X", 5, least=1), "0"),
        (lambda: env.database("EVEREST_X", Path("x")), "oracle://host/name"),
        (lambda: env.database("EVEREST_X", Path("x")), "postgresql://host"),
    ],
)
def test_senseless_values_are_named(monkeypatch, read, value):
    monkeypatch.setenv("EVEREST_X", value)
    with pytest.raises(ImproperlyConfigured, match="EVEREST_X"):
        read()


def test_values_are_read_and_defaults_kept(monkeypatch):
    monkeypatch.setenv("EVEREST_X", "yes")
    assert env.flag("EVEREST_X", False) and env.flag("EVEREST_Y", True)
    assert env.number("EVEREST_Y", 2.5) == 2.5
    assert env.words("EVEREST_Y", "a, b,") == ["a", "b"]


def test_another_database_is_one_address(monkeypatch):
    monkeypatch.setenv("EVEREST_X", "postgresql://ann:p%40ss@db.example:5433/everest")
    made = env.database("EVEREST_X", Path("x"))
    assert (made["USER"], made["PASSWORD"], made["HOST"], made["PORT"]) == ("ann", "p@ss", "db.example", 5433)


def test_a_generated_key_is_kept_and_its_owners_alone(tmp_path):
    path = tmp_path / "key"
    assert env.kept("EVEREST_Y", path, lambda: "first") == "first"
    assert env.kept("EVEREST_Y", path, lambda: "second") == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def start(tmp_path, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVEREST_")}
    code = "import json\nfrom django.conf import settings as s\nprint(json.dumps([s.DEBUG, s.SESSION_COOKIE_SECURE]))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**kept, "DJANGO_SETTINGS_MODULE": "everest.settings", "EVEREST_DATA": str(tmp_path), **environment},
        capture_output=True,
        text=True,
    )


def test_the_defaults_are_the_safe_ones(tmp_path):
    assert start(tmp_path).stdout.strip() == "[false, true]"
    assert (tmp_path / "secret.keys").exists() and (tmp_path / "signing.key").exists()


def test_a_bad_key_stops_the_start_without_being_shown(tmp_path):
    started = start(tmp_path, EVEREST_SECRET_KEYS="not-a-key-but-secret")
    assert started.returncode and "EVEREST_SECRET_KEYS" in started.stderr
    assert "not-a-key-but-secret" not in started.stderr.splitlines()[-1]
