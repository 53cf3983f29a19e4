"""Reaching a server: every failure is a sentence that says what to change, and no secret is shown."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from backups.engine.errors import EngineError, Refused, Transient
from backups.engine.mysql.server import ServerConfig, connect, current_position, identify, quote, value
from everest.demo.servers import Server, free_port
from tests.helpers import source_config
from tests.servers.backups import script

FLAVOURS = pytest.mark.parametrize("flavour", ["mysql", "mariadb"])


def source(request: Any, flavour: str) -> Server:
    server: Server = request.getfixturevalue(f"{flavour}_source")
    return server


def refusal(config: ServerConfig, kind: type[EngineError], timeout: float = 5) -> str:
    with pytest.raises(kind) as caught:
        connect(config, timeout=timeout)
    assert config.password not in str(caught.value) and config.password not in repr(config)
    return str(caught.value)


@FLAVOURS
def test_tls_that_is_verified_required_or_off(flavour: str, request: Any) -> None:
    server = source(request, flavour)
    config = source_config(server)
    place = "performance_schema.session_status" if flavour == "mysql" else "information_schema.SESSION_STATUS"
    status = f"SELECT VARIABLE_VALUE FROM {place} WHERE VARIABLE_NAME = 'Ssl_version'"
    for tls, encrypted in (("verify", True), ("required", True), ("off", False)):
        with closing(connect(replace(config, tls=tls, ca=server.ca))) as connection:
            assert bool(value(connection, status)) == encrypted
    with closing(connect(replace(config, tls="required", unix_socket=str(server.socket), user="root", password=""))):
        pass


@FLAVOURS
def test_a_certificate_of_an_unknown_authority_or_for_another_host_is_refused(flavour: str, request: Any) -> None:
    server = source(request, flavour)
    config = source_config(server, tls="verify")
    assert "is not trusted" in refusal(config, Refused)
    assert "could not be read" in refusal(replace(config, ca="not PEM"), Refused)
    # 127.1 is the same address by a name that the certificate does not hold.
    elsewhere = replace(config, host="127.1", ca=server.ca)
    assert "is not trusted" in refusal(elsewhere, Refused)
    with closing(connect(replace(elsewhere, tls="required"))):
        pass


@FLAVOURS
def test_wrong_host_port_and_password_are_sentences(flavour: str, request: Any) -> None:
    config = source_config(source(request, flavour))
    assert "host name no-such-host.invalid is not known" in refusal(
        replace(config, host="no-such-host.invalid"), Refused
    )
    assert "connection was refused" in refusal(replace(config, port=free_port()), Transient)
    assert f"does not accept user {config.user}" in refusal(replace(config, password="wrong – ü"), Refused)
    assert "does not accept user nobody" in refusal(replace(config, user="nobody"), Refused)


def test_connections_share_what_was_loaded_for_tls_with_those_that_trust_the_same(mysql_source: Server) -> None:
    config = source_config(mysql_source, tls="verify", ca=mysql_source.ca)
    with closing(connect(config)) as one, closing(connect(config)) as same:
        assert one.ctx is same.ctx
        with closing(connect(replace(config, tls="required"))) as other:
            assert other.ctx is not one.ctx


def test_an_account_that_asks_for_tls_says_so(mysql_source: Server) -> None:
    config = source_config(mysql_source, tls="off")
    script(mysql_source, [f"ALTER USER '{config.user}'@'%' REQUIRE SSL"])
    assert refusal(config, Refused)
    with closing(connect(replace(config, tls="required"))):
        pass


def test_a_server_without_tls_is_refused_unless_tls_is_off(new_server: Any) -> None:
    server = new_server("mariadb", options=("--skip-ssl",))
    config = source_config(server)
    assert "does not offer TLS" in refusal(config, Refused)
    with closing(connect(replace(config, tls="off"))):
        pass


def test_what_does_not_answer_or_is_no_database_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = ServerConfig("127.0.0.1", silent.getsockname()[1], "u", "secret-password")
        assert "did not answer in time" in refusal(config, Transient, timeout=0.3)

        def hang_up() -> None:
            while True:
                try:
                    silent.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        assert "ended the connection" in refusal(config, Transient)


def test_a_client_certificate_is_given_from_text(mysql_source: Server, tmp_path: Any) -> None:
    config = source_config(mysql_source, client_certificate="-----BEGIN CERTIFICATE-----\nx", client_key="y")
    assert "could not be read" in refusal(config, Refused)


@FLAVOURS
def test_a_server_tells_who_it_is_and_where_its_log_ends(flavour: str, request: Any) -> None:
    server = source(request, flavour)
    with closing(connect(source_config(server, tls="off"))) as connection:
        identity = identify(connection)
        assert (identity.flavour, identity.gtid) == (flavour, True)
        assert identity.server_uuid and identity.version >= (9, 7) if flavour == "mysql" else (10, 6)
        before = current_position(connection)
        assert before["server"] == identity.server_uuid and before["file"] == "binlog.000001"
        script(server, ["CREATE DATABASE one"])
        after = current_position(connection)
        assert after["pos"] > before["pos"] and after["gtids"] != before["gtids"]
        assert current_position(connection) == after


def test_positions_are_file_and_offset_where_gtids_are_off(mysql_files: Server) -> None:
    with closing(connect(source_config(mysql_files, tls="off"))) as connection:
        assert identify(connection).gtid is False
        assert current_position(connection)["gtids"] is None


@FLAVOURS
def test_an_old_server_is_refused(flavour: str, request: Any) -> None:
    with closing(connect(source_config(source(request, flavour), tls="off"))) as connection:
        for greeting in ("5.7.44-log", "5.5.5-10.5.29-MariaDB"):
            connection.server_version = greeting
            with pytest.raises(Refused, match="or newer"):
                identify(connection)


def test_a_connection_that_breaks_while_the_server_is_looked_at_is_a_sentence(mysql_source: Server) -> None:
    for look in (identify, current_position):
        connection = connect(source_config(mysql_source))
        script(mysql_source, [f"KILL {connection.thread_id()}"])
        with pytest.raises(Transient, match="the connection to the server broke"):
            look(connection)


def test_any_name_is_quoted() -> None:
    assert quote("a`b; DROP") == "`a``b; DROP`"
