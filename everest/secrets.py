"""The only place that encrypts and decrypts stored credentials.

A value is stored as `key id . Fernet token`; the key comes from EVEREST_SECRET_KEYS or a key file (settings).
The first key encrypts, every listed key decrypts, so keys can be changed without a stop.
"""

from __future__ import annotations

import hashlib

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.db import models


class SecretLost(Exception):
    """The key that a stored credential was encrypted with is not among the configured ones."""


def key_id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def encrypt(plain: str) -> str:
    key = settings.EVEREST_SECRET_KEYS[0]
    return f"{key_id(key)}.{Fernet(key).encrypt(plain.encode()).decode()}"


def decrypt(stored: str) -> str:
    """Raise SecretLost, naming the key id, where the key is gone or the value was altered."""
    wanted, _, token = stored.partition(".")
    for key in settings.EVEREST_SECRET_KEYS:
        if key_id(key) == wanted:
            try:
                return Fernet(key).decrypt(token.encode()).decode()
            except InvalidToken as error:
                raise SecretLost(f"A stored credential (key {wanted}) is damaged. Enter it again.") from error
    raise SecretLost(
        f"A stored credential was encrypted with key {wanted}, which is not configured. "
        "Add that key to EVEREST_SECRET_KEYS, or enter the credential again."
    )


class Secret:
    """A credential that shows itself only when asked; keeps the stored text so that saving does not re-encrypt."""

    __slots__ = ("stored",)

    def __init__(self, stored: str) -> None:
        self.stored = stored

    @classmethod
    def of(cls, plain: str) -> Secret:
        return cls(encrypt(plain) if plain else "")

    def reveal(self) -> str:
        return decrypt(self.stored) if self.stored else ""

    def __bool__(self) -> bool:
        return bool(self.stored)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.stored == self.stored

    def __hash__(self) -> int:
        return hash(self.stored)

    def __repr__(self) -> str:
        return "<secret>" if self.stored else "<no secret>"

    __str__ = __repr__


class SecretField(models.TextField):
    """Holds a Secret; a plain string assigned to it is encrypted on save."""

    def from_db_value(self, value, expression, connection):
        return Secret(value or "")

    def to_python(self, value):
        return value if isinstance(value, Secret) else Secret.of(value or "")

    def get_prep_value(self, value):
        return self.to_python(value).stored
