"""What README.md repeats from the code is what the code says."""

import re
from pathlib import Path

import pytest

from backups.engine.mysql.grants import grant_statements
from backups.management.command import Exit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FLAT = " ".join(README.split())


@pytest.mark.parametrize("role", ["source", "target"])
@pytest.mark.parametrize(("flavour", "version"), [("mysql", (9, 7, 4)), ("mariadb", (10, 11, 19))])
def test_the_grants_are_those_that_the_tests_run_with(flavour, version, role):
    for statement in grant_statements(flavour, version, role, "'everest'@'%'"):
        assert f"{statement};" in FLAT


def test_every_exit_code_is_explained():
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)] == [int(one) for one in Exit]


def test_every_command_is_explained():
    commands = {path.stem for path in (ROOT / "backups/management/commands").glob("[a-z]*.py")}
    assert commands == set(re.findall(r"^\| `manage.py (\w+)", README, re.MULTILINE))


def test_every_setting_named_exists():
    settings = (ROOT / "everest/settings.py").read_text()
    named = set(re.findall(r"`(EVEREST_\w+)`", README[README.index("### Settings") : README.index("## Command line")]))
    assert named
    assert not [name for name in named if f'"{name}"' not in settings]
