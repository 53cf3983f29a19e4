"""Accounts and grants: in every backup, put back only on request, and never over what the target has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backups.engine.archive import Archive
from backups.engine.errors import Refused
from backups.engine.manifest import Manifest, from_body, to_body
from backups.engine.mysql import accounts
from backups.engine.mysql.preflight import preflight_source
from backups.engine.mysql.restore import RestoreResult, restore
from backups.engine.mysql.server import ServerConfig, identify
from backups.engine.types import Plan
from everest.demo.servers import Server
from tests.helpers import source_config, target_config
from tests.servers.backups import Told, archive_in, back_up, script

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])
ACCOUNTS = (
    "CREATE USER 'a b'@'10.%' IDENTIFIED BY 'x' REQUIRE SSL WITH MAX_USER_CONNECTIONS 5 PASSWORD EXPIRE NEVER"
    " ACCOUNT LOCK",
    "CREATE ROLE reader",
    "CREATE ROLE top",
    "GRANT SELECT ON *.* TO reader",
    "GRANT reader TO 'a b'@'10.%' WITH ADMIN OPTION",
    "GRANT reader TO top",
    "CREATE DATABASE a",
    "CREATE TABLE a.t (x int, y int)",
    "GRANT SELECT (x), INSERT ON a.t TO 'a b'@'10.%' WITH GRANT OPTION",
    "CREATE PROCEDURE a.p() SELECT 1",
    "GRANT EXECUTE ON PROCEDURE a.p TO 'a b'@'10.%'",
    "CREATE USER `o'dd``@ TO x`@localhost IDENTIFIED BY 'it''s'",
    "GRANT UPDATE ON a.* TO `o'dd``@ TO x`@localhost",
    "CREATE USER app IDENTIFIED BY 'app-secret'",
    "GRANT ALL ON a.* TO app",
)
OWN = {
    "mysql": (
        "ALTER USER 'a b'@'10.%' DEFAULT ROLE reader",
        "GRANT BACKUP_ADMIN ON *.* TO app WITH GRANT OPTION",
        "ALTER USER app COMMENT 'GRANT x TO `y`@`z`'",
    ),
    "mariadb": ("SET DEFAULT ROLE reader FOR 'a b'@'10.%'", "GRANT SELECT ON a.* TO PUBLIC"),
    "mariadb_new": ("SET DEFAULT ROLE reader FOR 'a b'@'10.%'", "GRANT SELECT ON a.* TO PUBLIC"),
}


class Pair:
    """A source with accounts, its backup, and a target."""

    def __init__(self, request: Any, flavour: str, folder: Path) -> None:
        self.source: Server = request.getfixturevalue(f"{flavour}_source")
        self.target: Server = request.getfixturevalue(f"{flavour}_target")
        script(self.source, (*ACCOUNTS, *OWN[flavour]))
        self.archive: Archive = archive_in(folder)
        self.manifest: Manifest = back_up(source_config(self.source, tls="off"), self.archive)

    def account(self, *, everything: bool) -> ServerConfig:
        config = target_config(self.target, tls="off")
        if everything:
            script(self.target, [f"GRANT ALL PRIVILEGES ON *.* TO '{config.user}' WITH GRANT OPTION"])
        return config

    def restore(self, config: ServerConfig, run: Told, **options: Any) -> RestoreResult:
        options = {"accounts": True, "replace": False, "remember": lambda settings: None, **options}
        plan = Plan(self.manifest.point("folder"), (), self.manifest.position)
        return restore(config, plan, self.manifest, {"folder": self.archive}, run=run, **options)


def known(server: Server) -> list[bytes]:
    """What makes its accounts, but those of Everest and root."""
    with server.connect() as connection:
        lines = accounts.read(connection, identify(connection))
    return [line for line in lines if b"`everest_" not in line and b"`root`" not in line]


@pytest.mark.parametrize("flavour", OWN)
def test_accounts_come_back_on_request(flavour: str, request: Any, tmp_path: Path) -> None:
    pair, run = Pair(request, flavour, tmp_path), Told()
    result = pair.restore(pair.account(everything=True), run)
    assert known(pair.target) == known(pair.source) != []
    assert result.broken == ()
    assert any("stay as they are: `root`@" in line for line in run.lines)
    pair.target.connect(user="app", password="app-secret").close()


@FLAVOURS
def test_without_a_request_no_account_is_made(flavour: str, request: Any, tmp_path: Path) -> None:
    pair = Pair(request, flavour, tmp_path)
    pair.restore(pair.account(everything=False), Told(), accounts=False)
    assert known(pair.target) == []


@FLAVOURS
def test_an_account_of_the_target_stays_as_it_is(flavour: str, request: Any, tmp_path: Path) -> None:
    pair, run = Pair(request, flavour, tmp_path), Told()
    script(pair.target, ["CREATE USER app IDENTIFIED BY 'other-secret'"])
    pair.restore(pair.account(everything=True), run)
    pair.target.connect(user="app", password="other-secret").close()
    assert any("`app`@`%`" in line for line in run.lines)
    assert not [line for line in known(pair.target) if line.startswith(b"GRANT ALL") and b"`app`" in line]


@FLAVOURS
def test_what_is_needed_is_named_before_anything_is_touched(flavour: str, request: Any, tmp_path: Path) -> None:
    pair = Pair(request, flavour, tmp_path)
    with pytest.raises(Refused, match=r"GRANT ALL PRIVILEGES ON .* WITH GRANT OPTION"):
        pair.restore(pair.account(everything=False), Told())
    with pair.target.connect() as connection, connection.cursor() as cursor:
        assert cursor.execute("SHOW DATABASES LIKE 'a'") == 0


def test_an_account_that_may_not_see_the_others_backs_up_without_them(new_server: Any, tmp_path: Path) -> None:
    server = new_server("mysql", options=("--partial-revokes=ON",))
    config = source_config(server, tls="off")
    script(server, [f"REVOKE SELECT ON mysql.* FROM '{config.user}'@'%'"])
    run = Told()
    manifest = back_up(config, archive_in(tmp_path), run=run)
    assert manifest.accounts is None
    assert any("not part of this backup" in line for line in run.lines)
    (line,) = [check for check in preflight_source(config) if check.name == "Accounts"]
    assert line.state == "warn" and not [check for check in preflight_source(config) if check.state == "fail"]


@FLAVOURS
def test_what_the_target_refuses_is_named_without_secrets(flavour: str, request: Any, tmp_path: Path) -> None:
    pair, run = Pair(request, flavour, tmp_path), Told()
    statements = [b"CREATE USER `x`@`%` IDENTIFIED WITH no_such_plugin AS 'secret-hash'", b"CREATE USER `y`@`%`"]
    config = pair.account(everything=True)
    with pair.target.connect() as connection:
        (sentence,) = accounts._made(connection, statements, run)
        assert cursor_of(connection, "SELECT 1 FROM mysql.user WHERE user = 'y'") == 1
    assert "`x`@`%`" in sentence and "secret-hash" not in sentence and config


def cursor_of(connection: Any, sql: str) -> int:
    with connection.cursor() as cursor:
        return int(cursor.execute(sql))


def test_a_manifest_from_before_accounts_is_read(mysql_source: Server, tmp_path: Path) -> None:
    manifest = back_up(source_config(mysql_source, tls="off"), archive_in(tmp_path))
    body = {name: value for name, value in to_body(manifest).items() if name not in ("accounts", "inexact")}
    old = from_body(body)
    assert old.accounts is None and old.schemas == manifest.schemas
    assert manifest.accounts in list(manifest.data()) and from_body(to_body(manifest)) == manifest
    with pytest.raises(Refused, match="holds no accounts"):
        accounts.require(source_config(mysql_source, tls="off"), old.accounts)


def test_whom_a_statement_is_about() -> None:
    for statement, account in (
        (b"CREATE USER `a``@b`@`%` IDENTIFIED BY PASSWORD 'TO `x`@`y`'", b"`a``@b`@`%`"),
        (b"GRANT SELECT (`TO`), INSERT ON `a TO `.`t` TO `a b`@`10.%` WITH GRANT OPTION", b"`a b`@`10.%`"),
        (b"GRANT `r` TO `top`", b"`top`"),
        (b"GRANT SELECT ON `a`.* TO PUBLIC", b"PUBLIC"),
        (b"REVOKE SELECT ON `mysql`.* FROM `a`@`%`", b"`a`@`%`"),
        (b"SET DEFAULT ROLE `r` FOR `a`@`%`", b"`a`@`%`"),
        (b"GRANT PROXY ON ``@`` TO `root`@`localhost` WITH GRANT OPTION", b"`root`@`localhost`"),
        (b"ALTER USER `a`@`%` DEFAULT ROLE `r`@`%`", b"`a`@`%`"),
    ):
        assert accounts.account_of(statement) == account
