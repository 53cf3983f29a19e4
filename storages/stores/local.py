"""A folder as an object store: for trying out, and for mounted disks."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

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

# No legal key holds a tilde: what a crash leaves under such a name is never listed.
TEMPORARY = "~"
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EAGAIN}
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class LocalStore:
    """Objects are files below `config.bucket`, written beside their place, synced, then given their name."""

    conditional_put = True

    def __init__(self, config: StoreConfig) -> None:
        if not os.path.isabs(config.bucket):
            raise StoreError(f"{config.bucket!r} is not an absolute folder.", hint="Give the whole path.")
        self.name = config.name
        self._folder = Path(os.path.realpath(config.bucket))
        self._root = self._folder / key_prefix(config)

    def check(self) -> None:
        with self._sentences(), os.scandir(self._folder):
            pass

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._write(key, [data], if_absent)

    def upload(self, key: str, parts: Iterable[bytes]) -> int:
        return self._write(key, parts, if_absent=False)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(check_key(key))
        with self._sentences(key), open(path, "rb", opener=_open_no_link) as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        self.check()
        base = prefix[: prefix.rfind("/") + 1]
        if not base or is_key(base[:-1]):
            yield from self._walk(base, prefix, after)

    def delete(self, keys: Iterable[str]) -> None:
        self.check()
        for key in keys:
            path = self._path(check_key(key))
            with self._sentences(), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
            self._prune(path.parent)

    def tidy(self, prefix: str, before: datetime) -> int:
        self.check()
        count = 0
        with self._sentences():
            for path in self._path(prefix).rglob(f"{TEMPORARY}*"):
                with suppress(FileNotFoundError):
                    if path.is_file() and not path.is_symlink() and path.stat().st_mtime < before.timestamp():
                        path.unlink()
                        count += 1
        return count

    def _write(self, key: str, parts: Iterable[bytes], if_absent: bool) -> int:
        """Temporary file, fsync, name, fsync of the folder; on any error the temporary file goes."""
        path = self._path(check_key(key))
        with self._sentences():
            number, temporary = self._temporary(path.parent)
        try:
            with open(number, "wb", buffering=0) as file:
                size = 0
                for part in parts:  # outside of _sentences: its errors are not ours
                    with self._sentences():
                        size += _write_all(file.fileno(), part)
                with self._sentences():
                    os.fsync(file.fileno())
            with self._sentences():
                _give_name(temporary, path, if_absent)
                _sync(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return size

    def _temporary(self, folder: Path) -> tuple[int, str]:
        """A new file in `folder`, which is made; a `delete` may take the empty folder away in between."""
        for _ in range(9):
            with suppress(FileNotFoundError):
                self._make(folder)
                return tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
        self._make(folder)
        return tempfile.mkstemp(prefix=TEMPORARY, dir=folder)

    def _make(self, folder: Path) -> None:
        """Make the folders down to `folder`, each durable in the one above; never the storage's own."""
        if folder == self._folder or folder.is_dir():
            return
        self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            _sync(folder.parent)

    def _prune(self, folder: Path) -> None:
        """Take away folders that became empty."""
        with suppress(OSError):  # not empty, or gone: nothing of ours is lost by leaving it
            while folder != self._folder:
                folder.rmdir()
                folder = folder.parent

    def _walk(self, base: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Objects below the folder `base` ("" or ending in a slash), a folder's names sorted as its keys are."""
        for name in self._names(base, prefix, after):
            key = base + name
            if name.endswith("/"):
                yield from self._walk(key, prefix, after)
            elif info := self._info(key):
                yield info

    def _info(self, key: str) -> ObjectInfo | None:
        """One line of a listing; None where the object was deleted meanwhile."""
        with self._sentences(), suppress(FileNotFoundError):
            found = os.stat(self._root / key, follow_symlinks=False)
            return ObjectInfo(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
        return None

    def _names(self, base: str, prefix: str, after: str) -> Sequence[str]:
        """Names in one folder that lead to wanted keys; those of folders end in a slash."""
        names = []
        with self._sentences(), suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._path(base)) as found:
            for entry in found:
                name = entry.name + "/" * entry.is_dir(follow_symlinks=False)
                key = base + name
                wanted = key.startswith(prefix) and not _all_before(key, after) and is_key(base + entry.name)
                if wanted and (name.endswith("/") or entry.is_file(follow_symlinks=False)):
                    names.append(name)
        return sorted(names)

    def _path(self, key: str) -> Path:
        """Where an object, or with "" or an ending slash a folder of objects, lies; never outside by a link."""
        path = self._root / key
        folder = path if not key or key.endswith("/") else path.parent
        if os.path.realpath(folder) != str(folder):
            raise StoreError(f"{folder} leads out of the storage by a link.", hint="Remove the link.")
        return path

    @contextmanager
    def _sentences(self, key: str = "") -> Iterator[None]:
        """Turn an OSError into the StoreError that tells a person what to do."""
        try:
            yield
        except OSError as error:
            raise self._explain(error, key) from error

    def _explain(self, error: OSError, key: str) -> StoreError:
        folder, reason = self._folder, error.strerror or str(error)
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and not os.path.isdir(folder):
            return StoreError(f"The folder {folder} does not exist.", hint="Create it, or mount the disk it is on.")
        if error.errno in DENIED:
            return Denied(f"{error.filename or folder}: {reason}.", hint="Let Everest's account read and write there.")
        if error.errno in FULL:
            return StoreError(f"{folder} is full: {reason}.", hint="Free space; nothing written before is affected.")
        if error.errno in PASSING:
            return Unreachable(f"{folder} cannot be used now: {reason}.", hint="Look at the disk, or its server.")
        if key and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            return NotFound(f"There is no object {key} in {folder}.")
        return StoreError(f"{error.filename or folder}: {reason}.", hint=f"Look at what lies in {folder}.")


def _all_before(key: str, after: str) -> bool:
    """Whether `key`, or every key in it where it is a folder's, sorts at or before `after`."""
    return key <= after and not (key.endswith("/") and after.startswith(key))


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _write_all(number: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(number, rest) :]
    return len(data)


def _give_name(temporary: str, path: Path, if_absent: bool) -> None:
    """Name a finished file; with `if_absent` by a link, of which only one can win."""
    if not if_absent:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise AlreadyExists(f"{path} is taken.") from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _name_without_link(temporary, path)
    else:
        os.unlink(temporary)


def _name_without_link(temporary: str, path: Path) -> None:
    """Best effort on file systems without hard links (FAT, some network folders)."""
    if path.exists():
        raise AlreadyExists(f"{path} is taken.")
    os.replace(temporary, path)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
