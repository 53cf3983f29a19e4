"""Encryption before anything leaves for a bucket: AES-256-GCM in chunks, a key of its own for each object.

The object's key is wrapped by one of the storage's keys and lies in the object's head, so a new storage key needs
no object to be written again.  FORMAT.md has the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backups.engine.errors import Corrupt, Refused

MAGIC = b"EVEREST\x01"
CHUNK = 64 << 10  # bytes before encryption
KEY, ID, NONCE, TAG = 32, 8, 12, 16  # bytes
HEAD = len(MAGIC) + ID + NONCE + KEY + TAG


@dataclass(frozen=True, slots=True)
class Keys:
    """A storage's keys by their ids: the first encrypts, every one decrypts; none at all leaves objects readable."""

    ring: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Keys:
        """From lines of 32 bytes in base64; ValueError with a sentence."""
        return cls({key_id(key): key for key in map(_key, text.split())})

    @property
    def current(self) -> str | None:
        return next(iter(self.ring), None)

    def named(self, wanted: str, name: str) -> bytes:
        """Raise Refused where the storage has no such key."""
        if wanted not in self.ring:
            raise Refused(
                f"{name} is encrypted with key {wanted}, which this storage's settings do not have.",
                meaning="Nobody can read it without that key; it is not damaged.",
                next_step="Add the key to the storage's encryption keys. If it is lost, so is what it encrypted.",
            )
        return self.ring[wanted]


def _key(line: str) -> bytes:
    try:
        key = base64.b64decode(line, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY:
        raise ValueError("A key is 32 random bytes in base64: `openssl rand -base64 32` makes one.")
    return key


def key_id(key: bytes) -> str:
    """16 hexadecimal digits that tell which key it is, and nothing about it."""
    return hashlib.sha256(b"everest key id" + key).hexdigest()[: 2 * ID]


def sealed(pieces: Iterable[bytes], keys: Keys, name: str) -> Iterator[bytes]:
    """The encrypted object, or the pieces as they are where there is no key.  name: the key it will lie under."""
    if keys.current is None:
        yield from pieces
        return
    own = secrets.token_bytes(KEY)
    place = MAGIC + bytes.fromhex(keys.current)
    nonce = secrets.token_bytes(NONCE)
    head = place + nonce + AESGCM(keys.ring[keys.current]).encrypt(nonce, own, place + name.encode())
    yield head
    cipher = AESGCM(own)
    for number, (chunk, last) in enumerate(_chunks(pieces, CHUNK)):
        yield cipher.encrypt(_nonce(number, last), chunk, head)


def opened(pieces: Iterable[bytes], keys: Keys, name: str) -> Iterator[bytes]:
    """What `sealed` was given; nothing is handed on before it is proven.  Raise Corrupt, and Refused without the key.

    An object that was written without encryption passes as it is.
    """
    pieces = iter(pieces)
    start = b""
    while len(start) < HEAD and (piece := next(pieces, b"")):
        start += piece
    if not start.startswith(MAGIC):
        yield from chain([start], pieces)
        return
    if len(start) < HEAD:
        raise _damaged(name)
    head = start[:HEAD]
    cipher = AESGCM(_own_key(head, keys, name))
    for number, (chunk, last) in enumerate(_chunks(chain([start[HEAD:]], pieces), CHUNK + TAG)):
        try:
            yield cipher.decrypt(_nonce(number, last), chunk, head)
        except InvalidTag as error:
            raise _damaged(name) from error


def _own_key(head: bytes, keys: Keys, name: str) -> bytes:
    place = head[: len(MAGIC) + ID]
    storage_key = keys.named(place[len(MAGIC) :].hex(), name)
    nonce, wrapped = head[len(place) : len(place) + NONCE], head[len(place) + NONCE :]
    try:
        return AESGCM(storage_key).decrypt(nonce, wrapped, place + name.encode())
    except InvalidTag as error:
        raise _damaged(name) from error


def _nonce(number: int, last: bool) -> bytes:
    """Counts the chunks, so that none can change places, and marks the last, so that none can be cut off."""
    return number.to_bytes(NONCE - 1) + bytes([last])


def _chunks(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Chunks of one size and whether each is the last, which may be shorter, or empty where there is nothing."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        at = 0
        while len(buffer) - at > size:
            yield bytes(buffer[at : at + size]), False
            at += size
        del buffer[:at]
    yield bytes(buffer), True


def _damaged(name: str) -> Corrupt:
    return Corrupt(
        f"{name} is damaged: it is not what was encrypted under this name.",
        meaning="It is not used; moments that need it are not restorable.",
        next_step="Run verify to see what else is affected; put the object back from a copy of the bucket, if any.",
    )
