"""Why a server could not be reached or signed in to, as sentences that say what to change."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pymysql.constants import CR, ER

from backups.engine.errors import EngineError, Refused, Transient

if TYPE_CHECKING:
    from backups.engine.mysql.server import ServerConfig


class Unanswered(Transient):
    """Neither a yes nor a no."""


def error_code(error: Exception) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def error_text(error: Exception) -> str:
    return str(error.args[1] if len(error.args) > 1 else error).rstrip(".")


def cannot_connect(config: ServerConfig, error: Exception) -> EngineError:
    cause = getattr(error, "original_exception", error)
    for kind, explain in _NETWORK:
        if isinstance(cause, kind):
            return explain(config, cause)
    return _sign_in_failed(config, error)


def _unknown_host(config: ServerConfig, error: Any) -> EngineError:
    return Refused(
        f"The host name {config.host} is not known.",
        next_step="Check its spelling, and that this machine's name server knows it.",
    )


def _port_refused(config: ServerConfig, error: Any) -> EngineError:
    return Unanswered(
        f"Nothing answers at {config.address}: the connection was refused.",
        next_step="Check the port, that the server runs, and that its bind_address lets this machine in.",
    )


def _no_answer(config: ServerConfig, error: Any) -> EngineError:
    return Unanswered(
        f"{config.address} did not answer in time.",
        next_step="Check host and port, and that no firewall stands between this machine and the server.",
    )


def _untrusted(config: ServerConfig, error: Any) -> EngineError:
    reason = getattr(error, "verify_message", "") or str(error)
    return Refused(
        f"The certificate of {config.address} is not trusted: {reason}.",
        meaning="Nothing was sent to it.",
        next_step="Give the CA certificate that signed it, and as host a name that the certificate holds; "
        "or choose TLS 'required' to encrypt without checking whom Everest speaks to.",
    )


def _tls_failed(config: ServerConfig, error: Any) -> EngineError:
    reason = getattr(error, "reason", "") or str(error)
    return Refused(
        f"TLS with {config.address} failed: {reason}.",
        next_step="The server must speak TLS 1.2 or newer, and accept the client certificate where one is given.",
    )


def _network(config: ServerConfig, error: Any) -> EngineError:
    return Unanswered(f"{config.address} cannot be reached: {error}.", next_step="Check the network, host and port.")


_NETWORK: tuple[tuple[type[Exception], Callable[[ServerConfig, Any], EngineError]], ...] = (
    (socket.gaierror, _unknown_host),
    (ConnectionRefusedError, _port_refused),
    (TimeoutError, _no_answer),
    (ssl.SSLCertVerificationError, _untrusted),
    (ssl.SSLError, _tls_failed),
    (OSError, _network),
)


def _sign_in_failed(config: ServerConfig, error: Exception) -> EngineError:
    code, text = error_code(error), error_text(error)
    if code in (ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, 1698):
        return Refused(
            f"{config.address} does not accept user {config.user} with this password.",
            next_step="Check user and password, and that the account exists for the host Everest connects from.",
        )
    if code in (1130, 1862, 1820, 3118, 4151):
        return Refused(f"{config.address} does not let user {config.user} in: {text}.")
    if code in (3159, 3170):
        return Refused(
            f"{config.address} lets user {config.user} in over TLS only.",
            next_step="Set TLS to 'required' or 'verify'.",
        )
    if code == CR.CR_SSL_CONNECTION_ERROR:
        return Refused(
            f"{config.address} does not offer TLS.",
            next_step="Give the server a certificate (ssl_cert, ssl_key), or set TLS to 'off' on a network you trust.",
        )
    if code in (CR.CR_SERVER_LOST, CR.CR_SERVER_GONE_ERROR):
        if "timed out" in text:
            return _no_answer(config, error)
        return Transient(
            f"{config.address} ended the connection before signing in.",
            next_step="Check that this is the port of a MySQL or MariaDB server, and that it is not just starting.",
        )
    return Transient(f"{config.address} did not let Everest in: {text}.")
