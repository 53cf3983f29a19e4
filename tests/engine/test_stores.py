"""The folder as a store, and what needs no server."""

import errno
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storages.stores import Denied, NotFound, StoreConfig, StoreError, Unreachable, open_store, probe
from storages.stores.local import TEMPORARY
from storages.stores.s3 import MAX_PART_SIZE, MIB, PART_SIZE, _blocks, part_size


@pytest.fixture
def store(tmp_path):
    return open_store(StoreConfig("local", "test", str(tmp_path)))


def keys(store, *args):
    return [info.key for info in store.list(*args)]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_writes_that_a_crash_cut_off_are_given_up_once_they_are_old(store, tmp_path):
    store.put("a/b/whole", b"1")
    left = tmp_path / "a/b" / f"{TEMPORARY}left"
    left.write_bytes(b"half")
    now = datetime.now(UTC)
    assert store.tidy("a/", now - timedelta(days=7)) == store.tidy("c/", now + timedelta(days=1)) == 0
    assert left.exists()
    assert store.tidy("a/", now + timedelta(days=1)) == 1
    assert files(tmp_path) == ["a", "a/b", "a/b/whole"]


# What a folder must not do


@pytest.mark.parametrize("place", ["inside/link", "link"])
def test_a_link_does_not_lead_out_of_the_storage(tmp_path, place):
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / place).parent.mkdir(parents=True)
    (root / place).symlink_to(outside)
    store = open_store(StoreConfig("local", "test", str(root)))
    for use in (
        lambda: store.get(f"{place}/secret"),
        lambda: store.put(f"{place}/new", b""),
        lambda: store.delete([f"{place}/secret"]),
        lambda: list(store.list(f"{place}/")),
    ):
        with pytest.raises(StoreError, match="leads out of the storage by a link"):
            use()
    assert keys(store) == []
    assert files(outside) == ["secret"]


def test_a_file_that_is_a_link_is_not_read(store, tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(StoreError):
        store.get("link")
    assert keys(store) == []


def test_a_prefix_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "prefix").symlink_to("/etc")
    store = open_store(StoreConfig("local", "test", str(tmp_path), prefix="prefix"))
    with pytest.raises(StoreError, match="by a link"):
        list(store.list())
    with pytest.raises(StoreError, match="by a link"):
        store.get("hostname")


def test_the_folder_itself_may_be_reached_by_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    open_store(StoreConfig("local", "test", str(tmp_path / "link"))).put("a", b"x")
    assert files(tmp_path) == ["disk", "disk/a", "link"]


def test_the_storages_own_folder_is_never_made(tmp_path):
    """It may be a disk that is not mounted: what is written there would be lost to sight."""
    store = open_store(StoreConfig("local", "test", str(tmp_path / "disk"), prefix="p"))
    for key in ("a", "b/c"):
        with pytest.raises(StoreError, match="disk does not exist"):
            store.put(key, b"x")
    assert files(tmp_path) == []


@pytest.mark.parametrize("folder", ["relative/folder", ""])
def test_a_folder_without_its_whole_path_is_refused(folder):
    with pytest.raises(StoreError, match="is not an absolute folder"):
        open_store(StoreConfig("local", "test", folder))


# Durable and whole


def test_an_object_appears_only_when_it_is_whole(store, tmp_path):
    def parts() -> Iterator[bytes]:
        yield b"first"
        assert keys(store) == []
        assert len(files(tmp_path)) == 2
        yield b"last"

    assert store.upload("v1/a", parts()) == 9
    assert files(tmp_path) == ["v1", "v1/a"]


def test_what_a_crash_leaves_is_not_listed(tmp_path):
    program = f"""
import os
from storages.stores import StoreConfig, open_store
def parts():
    yield bytes(1000)
    os._exit(9)
open_store(StoreConfig("local", "test", {str(tmp_path)!r})).upload("v1/a", parts())
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    left = files(tmp_path)
    assert len(left) == 2
    assert Path(left[1]).name.startswith(TEMPORARY)
    store = open_store(StoreConfig("local", "test", str(tmp_path)))
    assert keys(store) == []
    store.put("v1/a", b"x")
    assert keys(store) == ["v1/a"]


def test_the_file_is_synced_before_its_name_and_the_folders_after(store, tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace", "link", "mkdir"):
        real = getattr(os, name)

        def note(*args, name=name, real=real, **kwargs):
            what = (
                os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[-1 if name != "mkdir" else 0])
            )
            done.append((name, "file" if TEMPORARY in what else what.removeprefix(str(tmp_path))))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, note)
    store.put("a/b/c", b"x")
    folders = [("mkdir", "/a"), ("fsync", ""), ("mkdir", "/a/b"), ("fsync", "/a")]
    assert done == [*folders, ("fsync", "file"), ("replace", "/a/b/c"), ("fsync", "/a/b")]
    done.clear()
    store.put("a/b/d", b"x", if_absent=True)
    assert done == [("fsync", "file"), ("link", "/a/b/d"), ("fsync", "/a/b")]


def test_folders_that_became_empty_go(store, tmp_path):
    for key in ("a/b/c", "a/b/d", "a/e"):
        store.put(key, b"")
    store.delete(["a/b/c", "a/b/d"])
    assert files(tmp_path) == ["a", "a/e"]


def test_a_folder_that_a_delete_takes_away_is_made_again(store, tmp_path, monkeypatch):
    real = tempfile.mkstemp
    taken = []

    def mkstemp(**kwargs):
        if not taken:
            taken.append(kwargs["dir"].rmdir())
        return real(**kwargs)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    store.put("a/b", b"x")
    assert store.get("a/b") == b"x"
    assert taken


def test_objects_are_for_their_owner_only(store, tmp_path):
    store.put("a/b", b"x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o600


# Refusals


@pytest.fixture
def read_only(tmp_path):
    """A folder that may be read and not written, also where the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="everest-read-only-") as name:
        folder = Path(name)
        (folder / "a").write_bytes(b"x")
        (folder / "a").chmod(0o444)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield str(folder)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_a_read_only_folder_is_named(read_only):
    store = open_store(StoreConfig("local", "test", read_only))
    assert store.get("a") == b"x"
    for use in (lambda: store.put("b", b""), lambda: store.upload("b/c", [b""]), lambda: store.delete(["a"])):
        with pytest.raises(Denied, match=r"Permission denied\. Let Everest's account read and write there"):
            use()
    assert [(step.name, step.ok) for step in probe(store_config(read_only)).steps][-1] == ("Write", False)


def store_config(folder):
    return StoreConfig("local", "test", folder)


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.ENOSPC, StoreError, "is full: No space left on device. Free space"),
        (errno.EDQUOT, StoreError, "is full"),
        (errno.EROFS, Denied, "Read-only file system. Let Everest's account"),
        (errno.EIO, Unreachable, "cannot be used now: Input/output error. Look at the disk"),
        (errno.ESTALE, Unreachable, "cannot be used now"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_fails_is_a_sentence_and_leaves_nothing(store, tmp_path, monkeypatch, call, number, kind, sentence):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError, match=sentence) as caught:
        store.upload("a", [b"x"])
    assert type(caught.value) is kind
    assert str(tmp_path) in str(caught.value)
    assert files(tmp_path) == []


def test_an_object_is_no_folder_of_others(store):
    store.put("a", b"x")
    with pytest.raises(StoreError, match=r"Not a directory|File exists"):
        store.put("a/b", b"y")
    store.put("c/d", b"z")
    with pytest.raises(StoreError, match="directory"):
        store.put("c", b"y")
    with pytest.raises(NotFound):
        store.get("c")


def test_without_hard_links_a_taken_key_is_still_seen(store, monkeypatch):
    def link(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    store.put("a", b"first", if_absent=True)
    with pytest.raises(StoreError, match="is taken"):
        store.put("a", b"second", if_absent=True)
    assert store.get("a") == b"first"


def test_a_link_that_fails_otherwise_is_an_error(store, tmp_path, monkeypatch):
    def link(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Unreachable):
        store.put("a", b"first", if_absent=True)
    assert files(tmp_path) == []


# Secrets, listings and parts without a server


def test_secrets_are_not_shown():
    config = StoreConfig("s3", "test", "bucket", access_key="AKIA", secret_key="s3cr3t")
    assert "s3cr3t" not in repr(config)
    assert "s3cr3t" not in repr(open_store(config)) + repr(vars(open_store(config)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"endpoint": "s3.example.org"}, "is no URL. Begin it with https://"),
        ({"ca_certificate": "-----BEGIN"}, "The CA certificate is not readable"),
        ({"access_key": ""}, "Storage test has no keys"),
        ({"prefix": "a/../b"}, "The prefix 'a/../b' is not legal"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(change, sentence):
    with pytest.raises(StoreError, match=sentence):
        open_store(StoreConfig("s3", "test", "bucket", **{"access_key": "a", "secret_key": "b", **change}))


def test_a_profile_of_this_machine_changes_nothing(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.invalid")
    store = open_store(StoreConfig("s3", "test", "bucket", region="eu-west-1", access_key="a", secret_key="b"))
    assert store._client.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"


def test_many_stores_open_at_once_cost_little_memory():
    """One worker ships a hundred databases."""
    config = StoreConfig("s3", "test", "bucket", access_key="a", secret_key="b")
    first = open_store(config)
    tracemalloc.start()
    try:
        stores = [first, *(open_store(config) for _ in range(5))]
        assert tracemalloc.get_traced_memory()[0] < 5 * MIB, len(stores)
    finally:
        tracemalloc.stop()


SEGMENT = st.text("ab-./0_", min_size=1, max_size=3)


@given(
    names=st.sets(st.lists(SEGMENT, min_size=1, max_size=3).map("/".join), max_size=12), prefix=SEGMENT, after=SEGMENT
)
def test_any_listing_of_a_folder_is_as_a_bucket_would_give_it(names, prefix, after):
    with tempfile.TemporaryDirectory() as folder:
        store, kept = open_store(store_config(folder)), []
        for name in sorted(names):
            try:
                store.put(name, b"")
            except StoreError:  # not a legal key, or an object and a folder at once
                continue
            kept.append(name)
        for start, behind in (("", ""), (prefix, ""), ("", after), (prefix, after)):
            assert keys(store, start, behind) == [name for name in kept if name.startswith(start) and name > behind]


def test_parts_grow_so_that_any_object_fits():
    sizes = [part_size(number) for number in range(1, 10_001)]
    assert sizes[0] == PART_SIZE
    assert sum(sizes[:1000]) > 48 * 1024 * MIB
    assert sum(sizes) > 5 * 1024 * 1024 * MIB
    assert max(sizes) == MAX_PART_SIZE
    assert sizes == sorted(sizes)


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 20))
def test_blocks_are_cut_to_size_whatever_the_parts(parts, first):
    blocks = list(_blocks(parts, first))
    assert b"".join(blocks) == b"".join(parts)
    assert all(len(block) == part_size(number, first) for number, block in enumerate(blocks[:-1], 1))


def test_no_more_parts_are_taken_than_a_block_needs():
    taken = []
    blocks = _blocks((taken.append(number) or b"12345" for number in range(100)), 10)
    assert next(blocks) == b"1234512345"
    assert taken == [0, 1]
