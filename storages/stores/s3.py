"""An S3 bucket as an object store, by one client configuration for backup and restore."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import ssl
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session as BotocoreSession

from storages.stores.base import (
    AlreadyExists,
    Denied,
    NotFound,
    ObjectInfo,
    StoreConfig,
    StoreError,
    Unreachable,
    check_key,
    is_key,
    key_prefix,
)
from storages.stores.s3_errors import FAULTS, explain, no_store

MIB = 1024 * 1024
PART_SIZE = 8 * MIB
PARTS_A_SIZE = 200  # then parts double: 48 GiB fit in 1,000 parts, 8 TiB in 10,000
MAX_PART_SIZE = 1024 * MIB
SENDERS = 4  # parts of one upload under way at once
IN_FLIGHT = 4 * PART_SIZE  # bytes of parts under way at once, over all uploads of a store
BATCH = 1000  # keys in one DeleteObjects
READ_ATTEMPTS = 3
NO_BATCH_DELETE = {"NotImplemented", "MethodNotAllowed", "MissingContentMD5", "MissingContentLength", "InvalidRequest"}
NO_CHECKSUM = {"NotImplemented", "InvalidArgument", "InvalidRequest"}
# One for all stores, as each session keeps 12 MB of its own; it is not safe to make clients in several threads at once.
# Whatever AWS_PROFILE says on this machine has no say here.
SESSION = Session(botocore_session=BotocoreSession({"profile": (None, None, None, None)}))
SESSION_LOCK = threading.Lock()


class S3Store:
    """Objects in a bucket.

    attempts, timeout (seconds for a connection; six times that for an answer): how long a fault is borne.
    """

    def __init__(self, config: StoreConfig, *, attempts: int = 5, timeout: float = 10, part_size: int = PART_SIZE):
        if not (config.access_key and config.secret_key):
            raise Denied(f"Storage {config.name} has no keys.", hint="Enter Access Key and Secret Key.")
        self.name = config.name
        self.conditional_put = config.conditional_put
        self._config = config
        self._prefix = key_prefix(config)
        self._part_size = part_size
        self._window = _Window(IN_FLIGHT)
        self._batch_delete = True
        self._verify: bool | str = config.verify_tls
        if config.ca_certificate and config.verify_tls:
            self._verify = _ca_file(config.ca_certificate)
            weakref.finalize(self, os.unlink, self._verify)
        self._patience = attempts, timeout
        self._connected, self._owner = self._new_client(attempts, timeout), os.getpid()

    @property
    def _client(self) -> Any:
        """A process that was forked has connections of its own."""
        if self._owner != os.getpid():
            self._connected, self._owner = self._new_client(*self._patience), os.getpid()
        return self._connected

    def check(self) -> None:
        with self._sentences():
            try:
                self._client.head_bucket(Bucket=self._config.bucket)
            except ClientError:  # an answer to HEAD has no body to say why
                self._client.list_objects_v2(Bucket=self._config.bucket, Prefix=self._prefix, MaxKeys=1)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        place = self._place(key)
        condition = {"IfNoneMatch": "*"} if if_absent and self.conditional_put else {}
        with self._sentences(key):
            if if_absent and not self.conditional_put and self._size(key) is not None:
                raise AlreadyExists(f"{key} is taken.")
            answer = self._client.put_object(**place, **condition, Body=data, ChecksumSHA256=_checksum(data))
        self._said(answer, "ETag")

    def upload(self, key: str, parts: Iterable[bytes]) -> int:
        check_key(key)
        blocks = _blocks(parts, self._part_size)
        first = next(blocks, b"")
        if len(first) < self._part_size:
            self.put(key, first)
            return len(first)
        return self._multipart(key, chain([first], blocks))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        place = self._place(key)
        whole = offset == 0 and length is None
        last = "" if length is None else offset + max(length, 1) - 1
        wanted = {} if whole else {"Range": f"bytes={offset}-{last}"}
        return self._read(key, place | wanted, READ_ATTEMPTS)[:length]

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        start = {"StartAfter": self._prefix + after} if after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._config.bucket, Prefix=self._prefix + prefix, **start
        )
        answers, last = iter(pages), after
        while page := self._next(answers):
            self._said(page, "IsTruncated")
            for entry in page.get("Contents", []):
                key = entry["Key"].removeprefix(self._prefix)
                if last and key <= last:
                    raise StoreError(f"Bucket {self._config.bucket} is not listed in key order.", hint="Use another.")
                last = key
                if is_key(key):
                    yield ObjectInfo(key, entry["Size"], entry["LastModified"].astimezone(UTC))

    def delete(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := [self._place(key)["Key"] for key in islice(rest, BATCH)]:
            with self._sentences():
                if not (self._batch_delete and self._delete_batch(batch)):
                    for key in batch:
                        self._client.delete_object(Bucket=self._config.bucket, Key=key)

    def tidy(self, prefix: str, before: datetime) -> int:
        """Uploads in parts that nobody finished are paid for, and no listing of objects shows them."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._config.bucket, Prefix=self._prefix + prefix
        )
        answers, count = iter(pages), 0
        while page := self._next(answers):
            for entry in page.get("Uploads", []):
                if entry["Initiated"] < before:
                    self._abort({"Bucket": self._config.bucket, "Key": entry["Key"], "UploadId": entry["UploadId"]})
                    count += 1
        return count

    def _abort(self, upload: dict[str, Any]) -> None:
        with self._sentences(upload["Key"]):
            try:
                self._client.abort_multipart_upload(**upload)
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise

    def _new_client(self, attempts: int, timeout: float) -> Any:
        config = self._config
        settings: dict[str, Any] = {
            "signature_version": "s3v4",
            "s3": {"addressing_style": "path" if config.path_style else "virtual"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": timeout,
            "read_timeout": 6 * timeout,
            "max_pool_connections": 128,  # of all databases that one run ships
            "ignore_configured_endpoint_urls": True,
        }
        try:
            with SESSION_LOCK:
                return SESSION.client(
                    "s3",
                    aws_access_key_id=config.access_key,
                    aws_secret_access_key=config.secret_key,
                    region_name=config.region or "us-east-1",
                    endpoint_url=config.endpoint or None,
                    verify=self._verify,
                    config=Config(**settings),
                )
        except ValueError as error:
            raise StoreError(f"The endpoint {config.endpoint!r} is no URL.", hint="Begin it with https://.") from error
        except FAULTS as error:
            raise explain(error, config) from error

    def _place(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._config.bucket, "Key": self._prefix + check_key(key)}

    @contextmanager
    def _sentences(self, key: str = "") -> Iterator[None]:
        """Turn what botocore raises into the StoreError that tells a person what to do."""
        try:
            yield
        except FAULTS as error:
            raise explain(error, self._config, key) from error

    def _said(self, answer: Mapping[str, Any], word: str) -> Any:
        """A value that every store's answer has: a 200 without it is a page from something in between."""
        if word not in answer:
            raise no_store(self._config)
        return answer[word]

    def _read(self, key: str, request: dict[str, Any], attempts: int) -> bytes:
        """Ask and read; again where the body breaks off, which botocore itself does not repeat."""
        body = self._body(key, request)
        try:
            with self._sentences(key):
                return bytes(body.read())
        except Unreachable:
            if attempts == 1:
                raise
            return self._read(key, request, attempts - 1)

    def _body(self, key: str, request: dict[str, Any]) -> Any:
        """An object's bytes to come.  Content-Encoding is not looked at: some stores keep 'aws-chunked' in it."""
        with self._sentences(key):
            try:
                answer = self._client.get_object(**request)
            except ClientError as error:
                if error.response["Error"]["Code"] in ("InvalidRange", "416"):
                    return io.BytesIO()
                raise
        if "Range" in request and "ContentRange" not in answer:
            answer["Body"].close()
            raise StoreError(f"A part of {key} was asked for and the whole came.", hint="Use another store.")
        return answer["Body"]

    def _size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        try:
            with self._sentences(key):
                size: int = self._client.head_object(**self._place(key))["ContentLength"]
                return size
        except NotFound:
            return None

    def _next(self, pages: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
        with self._sentences():
            return next(pages, None)

    def _delete_batch(self, keys: Sequence[str]) -> bool:
        """Delete up to BATCH objects at once; False where the store cannot."""
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        try:
            answer = self._client.delete_objects(Bucket=self._config.bucket, Delete=objects)
        except ClientError as error:
            if error.response["Error"]["Code"] not in NO_BATCH_DELETE:
                raise
            self._batch_delete = False
            return False
        for failed in answer.get("Errors", []):
            if failed.get("Code") != "NoSuchKey":
                said: Any = {"Error": failed, "ResponseMetadata": {"HTTPStatusCode": 403}}
                raise explain(ClientError(said, "DeleteObjects"), self._config, failed.get("Key", ""))
        return True

    def _multipart(self, key: str, blocks: Iterable[bytes]) -> int:
        """Send blocks side by side.  No part is under way any more when a failed upload is given up."""
        upload, checksums = self._begin(key)
        sent: deque[Future[dict[str, Any]]] = deque()
        done, size = [], 0
        try:
            with ThreadPoolExecutor(SENDERS, "upload") as pool:
                for number, block in enumerate(blocks, 1):
                    self._window.enter(len(block))
                    sent.append(pool.submit(self._send, upload, number, block, checksums))
                    size += len(block)
                    while sent and sent[0].done():
                        done.append(sent.popleft().result())
            done.extend(future.result() for future in sent)
            self._finish(key, upload, done, size)
        except BaseException:
            with suppress(StoreError), self._sentences(key):  # what raised is the news, not this
                self._client.abort_multipart_upload(**upload)
            raise
        return size

    def _begin(self, key: str) -> tuple[dict[str, Any], bool]:
        """A new upload, and whether the store takes a SHA-256 with each part."""
        place = self._place(key)
        with self._sentences(key):
            try:
                answer = self._client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")
            except ClientError as error:
                if error.response["Error"]["Code"] not in NO_CHECKSUM:
                    raise
                answer = self._client.create_multipart_upload(**place)
        return place | {"UploadId": self._said(answer, "UploadId")}, answer.get("ChecksumAlgorithm") == "SHA256"

    def _send(self, upload: dict[str, Any], number: int, block: bytes, checksums: bool) -> dict[str, Any]:
        """Send one part; return its line for the end of the upload."""
        try:
            checksum = {"ChecksumSHA256": _checksum(block)} if checksums else {}
            with self._sentences(upload["Key"]):
                answer = self._client.upload_part(**upload, PartNumber=number, Body=block, **checksum)
            return {"PartNumber": number, "ETag": self._said(answer, "ETag")} | checksum
        finally:
            self._window.leave(len(block))

    def _finish(self, key: str, upload: dict[str, Any], parts: Sequence[dict[str, Any]], size: int) -> None:
        """Put the parts together; an upload that is gone was finished by a try whose answer was lost."""
        with self._sentences(key):
            try:
                answer = self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
                self._said(answer, "ETag")
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload" or self._size(key) != size:
                    raise


class _Window:
    """Bounds the bytes under way; who waits first goes first, so that a large part is not starved by small ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    def enter(self, size: int) -> None:
        """Wait until `size` more bytes fit, or nothing else is under way."""
        with self._turn, self._freed:
            self._freed.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size

    def leave(self, size: int) -> None:
        with self._freed:
            self._used -= size
            self._freed.notify()


def part_size(number: int, first: int = PART_SIZE) -> int:
    """Bytes of the part `number`, counted from 1."""
    return min(first << (number - 1) // PARTS_A_SIZE, MAX_PART_SIZE)


def _blocks(parts: Iterable[bytes], first: int) -> Iterator[bytes]:
    """Parts of any size as the parts of an upload; takes no more from `parts` than the next block needs."""
    block: list[memoryview] = []
    number, room = 1, first
    for part in parts:
        rest = memoryview(part)
        while rest:
            block.append(rest[:room])
            rest, room = rest[room:], room - len(block[-1])
            if not room:
                yield b"".join(block)
                number, block = number + 1, []
                room = part_size(number, first)
    if block:
        yield b"".join(block)


def _checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _ca_file(pem: str) -> str:
    """The path of a private file with the certificate, as botocore takes no text."""
    try:
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        hint = "Paste it with its BEGIN and END lines."
        raise StoreError("The CA certificate is not readable.", hint=hint) from error
    number, path = tempfile.mkstemp(prefix="everest-ca-", suffix=".pem")
    with open(number, "w") as file:
        file.write(pem)
    return path
