"""Who may import whom (design, Layout): walked over every module's source, so that a wall moves only on purpose."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("views", "forms", "urls", "admin")
OUTSIDE = ("django", "django_q", "everest", "backups", "storages")
DRIVERS = ("boto3", "botocore", "pymysql", "pymysqlreplication")


def modules(*packages: str) -> Iterator[tuple[str, Path]]:
    for package in packages:
        for path in sorted((ROOT / package.replace(".", "/")).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def imported(name: str, path: Path) -> Iterator[str]:
    """Every module that this one's source imports, anywhere in it, as absolute names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def offences(package: str, forbidden: tuple[str, ...], allowed: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{name} imports {target}"
        for name, path in modules(package)
        for target in imported(name, path)
        if within(target, forbidden) and not within(target, allowed)
    ]


def test_the_engine_imports_itself_and_the_stores_alone():
    assert not offences("backups.engine", OUTSIDE, ("backups.engine", "storages.stores"))


def test_the_stores_import_themselves_alone():
    assert not offences("storages.stores", OUTSIDE, ("storages.stores",))


def test_storages_never_import_backups():
    assert not offences("storages", ("backups",))


def test_pages_reach_the_engine_and_the_drivers_through_models_alone():
    forbidden = ("backups.engine", "backups.tasks", "storages.stores", "django_q", *DRIVERS)
    # The admin takes django-q2's own pages away; that is all a page may know of it.
    exempt = {"everest.admin": ("django_q",)}
    found = [
        f"{name} imports {target}"
        for name, path in modules("everest", "backups", "storages")
        if set(PAGES) & set(name.split(".")) and not name.startswith("everest.demo")
        for target in imported(name, path)
        if within(target, forbidden) and not within(target, exempt.get(name, ()))
    ]
    assert not found


def test_the_product_never_imports_its_demo_or_its_tests():
    found = [
        f"{name} imports {target}"
        for name, path in modules("everest", "backups", "storages")
        if not name.startswith("everest.demo")
        for target in imported(name, path)
        if within(target, ("everest.demo", "tests"))
    ]
    assert not found


@pytest.mark.parametrize("package", ["backups.engine", "storages.stores"])
def test_importing_the_engine_loads_no_django(package):
    names = [name.removesuffix(".__init__") for name, _ in modules(package)]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names!r}]; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_walk_sees_a_forbidden_import(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from django.db import models\n    from .. import tasks\n")
    assert {"django.db", "django.db.models", "backups.tasks"} <= set(imported("backups.engine.bad", path))
