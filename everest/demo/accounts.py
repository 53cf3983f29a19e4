"""Accounts with exactly the documented privileges, for the demo and the tests."""

from __future__ import annotations

import re
import secrets

from everest.demo.servers import Server


def create(server: Server, *roles: str) -> tuple[str, str]:
    """Make an account for a "source", a "target" or both; return its name and password."""
    from backups.engine.mysql.grants import grant_statements

    user, password = f"everest_{roles[0]}_{secrets.token_hex(3)}", secrets.token_urlsafe(12)
    version = tuple(int(part) for part in re.findall(r"\d+", server.version)[:3])
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (user, password))
        for role in roles:
            for statement in grant_statements(server.flavour, version, role, f"'{user}'@'%'"):
                cursor.execute(statement)
    return user, password
