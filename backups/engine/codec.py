"""The envelope of every record (index, manifest, database.json): a clear header line, a body, a hash line.

    {"everest":1,"kind":"slice","features":[],"codec":"json+zstd","key":null}\\n
    <body>\\n
    <64 hex digits: SHA-256 of all bytes before this line>\\n

The hash line is the same in every version, so damage is told from novelty: a reader says Corrupt where the
hash is wrong, and only then Refused where the header names something it does not know.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
import zstandard

from backups.engine.crypt import Keys, opened, sealed
from backups.engine.errors import Corrupt, Refused

VERSION = 1
FEATURES: frozenset[str] = frozenset()
HASH_LINE = 65
LARGEST_BODY = 1 << 30
PLAIN = Keys()


def seal(kind: str, body: Any, compress: bool, keys: Keys = PLAIN, name: str = "A record") -> bytes:
    """A record's bytes; without a key the same body always gives the same.

    compress: for bodies that only programs read.  name: the key it will lie under; encryption binds it to that.
    """
    codec = "json+zstd" if compress else "json"
    header = {"everest": VERSION, "kind": kind, "features": [], "codec": codec, "key": keys.current}
    data = b"%b\n%b\n" % (_json(header), b"".join(sealed([_encode(body, codec)], keys, name)))
    return data + hashlib.sha256(data).hexdigest().encode() + b"\n"


def unseal(data: bytes, kind: str, name: str = "A record", keys: Keys = PLAIN) -> Any:
    """The body of a record.

    name: the key it lies under, and what the error calls it.
    Raises Corrupt for damaged bytes or another kind, Refused for what a newer Everest wrote or a missing key.
    """
    if hashlib.sha256(data[:-HASH_LINE]).hexdigest().encode() + b"\n" != data[-HASH_LINE:]:
        raise _corrupt(name, "its bytes do not give its own hash")
    header_line, _, rest = data[:-HASH_LINE].partition(b"\n")
    codec, key = _read_header(header_line, kind, name)
    body = rest[:-1]
    if key is not None:
        keys.named(key, name)
        body = b"".join(opened([body], keys, name))
    return _decode(body, codec, name)


def _read_header(line: bytes, kind: str, name: str) -> tuple[str, str | None]:
    """How the body is encoded, and the id of the key that encrypts it."""
    try:
        header = json.loads(line)
        version, features, codec = header["everest"], frozenset(header["features"]), header["codec"]
        found, key = header["kind"], header["key"]
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(name, "its header cannot be read") from error
    unknown = sorted(map(str, features - FEATURES))
    if version != VERSION or unknown or codec not in ("json", "json+zstd"):
        raise Refused(
            f"{name} was written in format {version} with features {unknown} and codec {codec}.",
            meaning="This Everest does not know them, so it will not guess; the data is not damaged.",
            next_step="Update Everest to the version that wrote it, or a newer one.",
        )
    if found != kind:
        raise _corrupt(name, f"it is a {found}, not a {kind}")
    return str(codec), None if key is None else str(key)


def _encode(body: Any, codec: str) -> bytes:
    if codec == "json":
        return json.dumps(body, indent=1, allow_nan=False).encode()
    return zstandard.ZstdCompressor(level=3).compress(_json(body))


def _decode(body: bytes, codec: str, name: str) -> Any:
    try:
        if codec == "json+zstd":
            if zstandard.frame_content_size(body) > LARGEST_BODY:
                raise ValueError("too large")
            body = zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
        return json.loads(body)
    except (ValueError, zstandard.ZstdError) as error:
        raise _corrupt(name, "its body cannot be decoded") from error


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)  # an index has some numbers of each transaction: json takes ten times as long
    except TypeError:  # numbers beyond 64 bits, text that is no Unicode
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _corrupt(name: str, why: str) -> Corrupt:
    return Corrupt(
        f"{name} is damaged: {why}.",
        meaning="What depends on it cannot be trusted and is not used.",
        next_step="Run verify to see what else is affected; put the object back from a copy of the bucket, if any.",
    )
