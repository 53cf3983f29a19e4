"""Every store keeps the contract of storages/stores/base.py: a folder, the S3 emulator, Ceph's gateway."""

import dataclasses
import hashlib
import random
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backups.engine.forks import Fork
from storages.stores import AlreadyExists, Denied, NotFound, StoreConfig, StoreError, Unreachable, open_store, probe
from storages.stores.local import LocalStore
from storages.stores.s3 import PART_SIZE, S3Store

PREFIX = "some/prefix"
STORES = ["local", "s3", "ceph"]


def config_of(server, **changes):
    config = StoreConfig(
        "s3", "test", server.new_bucket(), server.region, server.endpoint, server.access_key, server.secret_key,
        path_style=True, prefix=PREFIX, conditional_put=True,
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


@pytest.fixture(params=STORES)
def config(request, tmp_path):
    if request.param == "local":
        return StoreConfig("local", "test", str(tmp_path), prefix=PREFIX)
    return config_of(request.getfixturevalue(request.param))


@pytest.fixture(params=STORES[1:])
def s3_config(request):
    return config_of(request.getfixturevalue(request.param))


@pytest.fixture
def store(config):
    return open_store(config)


def keys(store, *args):
    return [info.key for info in store.list(*args)]


def leftovers(config):
    """What uploads that were given up have left: parts in a bucket, temporary files in a folder."""
    if config.type == "local":
        return [path for path in Path(config.bucket).rglob("*") if path.is_file()]
    return open_store(config)._client.list_multipart_uploads(Bucket=config.bucket).get("Uploads", [])


# Writing and reading


def test_what_was_put_is_read_back(store):
    data = bytes(range(256)) * 9
    store.put("v1/a.bin", data)
    assert store.get("v1/a.bin") == data


def test_an_empty_object_is_an_object(store):
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert [info.size for info in store.list()] == [0]


def test_a_second_put_replaces_the_object(store):
    store.put("a", b"first")
    store.put("a", b"2nd")
    assert store.get("a") == b"2nd"


def test_a_part_is_read(store):
    store.put("digits", b"0123456789")
    assert store.get("digits", 3, 4) == b"3456"
    assert store.get("digits", 7) == b"789"
    assert store.get("digits", 8, 100) == b"89"
    assert store.get("digits", 0, 3) == b"012"


def test_nothing_is_read_beyond_the_end(store):
    store.put("digits", b"0123456789")
    for part in ((10, 5), (99, None), (2, 0)):
        assert store.get("digits", *part) == b""


def test_a_missing_object_is_not_found(store):
    store.put("there/is", b"x")
    for key in ("there", "there/isnt", "there/is/not"):
        for part in ((), (5,), (0, 0), (5, 10)):
            with pytest.raises(NotFound):
                store.get(key, *part)


def test_a_key_that_is_taken_stays_as_it_is(store):
    store.put("a", b"first", if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put("a", b"second", if_absent=True)
    assert store.get("a") == b"first"


def test_of_several_that_race_for_a_key_one_wins(store):
    def win(number):
        try:
            store.put("a", str(number).encode(), if_absent=True)
        except AlreadyExists:
            return None
        return str(number).encode()

    with ThreadPoolExecutor(8) as pool:
        winners = [won for won in pool.map(win, range(8)) if won]
    assert winners == [store.get("a")]


def test_without_conditional_put_a_taken_key_is_still_seen(config):
    store = open_store(dataclasses.replace(config, conditional_put=False))
    store.put("a", b"first", if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put("a", b"second", if_absent=True)
    assert store.get("a") == b"first"


# Uploads


@pytest.mark.parametrize("size", [0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE + 5])
def test_an_upload_of_any_size_is_read_back(store, size):
    data = random.Random(size).randbytes(size)
    step = 1_300_001
    assert store.upload("up/load", (data[start : start + step] for start in range(0, size, step))) == size
    assert hashlib.sha256(store.get("up/load")).digest() == hashlib.sha256(data).digest()


def test_one_part_larger_than_those_of_the_store_is_taken(store):
    data = random.Random(1).randbytes(2 * PART_SIZE + 1)
    assert store.upload("a", [b"", data, b"", b"end"]) == len(data) + 3
    assert store.get("a", PART_SIZE - 1, 2) == data[PART_SIZE - 1 : PART_SIZE + 1]
    assert store.get("a", len(data)) == b"end"


def test_an_upload_needs_the_memory_of_a_few_parts(store):
    parts = (bytes(1_000_000) for _ in range(120))
    store.put("warm", b"up")
    tracemalloc.start()
    try:
        assert store.upload("large", parts) == 120_000_000
        assert tracemalloc.get_traced_memory()[1] < 8 * PART_SIZE
    finally:
        tracemalloc.stop()


def test_an_upload_whose_parts_fail_leaves_nothing(config):
    def parts(sent, error):
        yield bytes(sent)
        raise error("the source broke")

    store = open_store(config)
    for sent in (100, 2 * PART_SIZE + 100):
        for error in (ValueError, OSError, KeyboardInterrupt, GeneratorExit):
            with pytest.raises(error, match="the source broke"):
                store.upload("a", parts(sent, error))
    assert keys(store) == []
    assert leftovers(config) == []


def test_an_upload_that_a_crash_cut_off_is_given_up_once_it_is_old(s3_config):
    store = open_store(s3_config)
    store.put("a/whole", b"1")
    for key in ("a/cut-off", "b/of-another"):
        place = {"Bucket": s3_config.bucket, "Key": f"{PREFIX}/{key}"}
        upload = store._client.create_multipart_upload(**place)["UploadId"]
        store._client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"half")
    now = datetime.now(UTC)
    assert store.tidy("a/", now - timedelta(days=7)) == 0 and len(leftovers(s3_config)) == 2
    assert store.tidy("a/", now + timedelta(days=1)) == 1
    assert [one["Key"] for one in leftovers(s3_config)] == [f"{PREFIX}/b/of-another"]
    assert keys(store) == ["a/whole"]


def test_uploads_side_by_side_do_not_mix(store):
    def upload(number):
        return store.upload(f"up/{number}", (bytes([number]) * 3_000_000 for _ in range(6)))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(upload, range(3))) == [18_000_000] * 3
    assert [set(store.get(f"up/{number}", 8_000_000, 9)) for number in range(3)] == [{0}, {1}, {2}]


def test_a_process_that_is_forked_does_not_use_its_parents_connections(store):
    """Both would write into one socket, and read each other's answers."""
    store.put("first", b"0")

    def put_many(who):
        for number in range(20):
            store.put(f"{who}/{number}", f"{who} {number}".encode())
        return [store.get(f"{who}/{number}") for number in range(20)]

    fork = Fork(lambda _: put_many("fork"))
    try:
        assert put_many("parent") == [f"parent {number}".encode() for number in range(20)]
        assert fork.result() == [f"fork {number}".encode() for number in range(20)]
    finally:
        fork.end()


# Listing and deleting


NAMES = ["a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a0", "ab/c", "b", "A/z", "_", "a_b", "a/bb/1", "a/bb/10", "a/bb/2"]


def test_a_listing_is_in_key_order(store):
    for name in NAMES:
        store.put(name, b"x")
    assert keys(store) == sorted(NAMES)


def test_a_listing_begins_at_a_prefix_and_after_a_key(store):
    for name in NAMES:
        store.put(name, b"x")
    prefixes = ["", "a", "a/", "a/b", "a/b/", "a/bb/", "a/bb/1", "A", "nothing/here", "a/b/x/y", "z"]
    afters = ["", *NAMES, "a", "a/", "a/bb", "a/bb/", "a/bb/15", "a~", "zz"]
    cases = [(prefix, after) for prefix in prefixes for after in afters]
    for prefix, after in cases if isinstance(store, LocalStore) else random.Random(1).sample(cases, 60):
        wanted = [name for name in sorted(NAMES) if name.startswith(prefix) and name > after]
        assert keys(store, prefix, after) == wanted, (prefix, after)


def test_a_listing_tells_size_and_time(store):
    store.put("a", b"12345")
    (info,) = store.list()
    assert info.size == 5
    assert info.modified.tzinfo is UTC
    assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=1)


def test_more_than_a_thousand_objects_are_listed_and_deleted(store):
    names = [f"many/{number % 7}/{number:05}" for number in range(1_010)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    assert keys(store, "many/") == sorted(names)
    store.delete(iter([*names[:-1], "many/none"]))
    assert keys(store) == names[-1:]


def test_deleting_twice_is_no_error(store):
    store.put("a/b", b"x")
    store.put("a/c", b"y")
    store.delete(["a/b", "a", "a/b/c", "none"])
    store.delete(["a/b"])
    store.delete([])
    with pytest.raises(NotFound):
        store.get("a/b")
    assert keys(store) == ["a/c"]


def test_objects_of_others_are_not_seen(config):
    store, other = open_store(config), open_store(dataclasses.replace(config, prefix=PREFIX + "-other"))
    around = open_store(dataclasses.replace(config, prefix=""))
    store.put("a", b"mine")
    other.put("a", b"theirs")
    assert keys(store) == ["a"]
    assert keys(around) == [f"{PREFIX}-other/a", f"{PREFIX}/a"]
    assert around.get(f"{PREFIX}/a") == b"mine"


def test_keys_that_are_not_legal_are_left_out_of_listings(s3_config):
    store = open_store(s3_config)
    for key in (f"{PREFIX}/", f"{PREFIX}/folder/", f"{PREFIX}/ü.txt", f"{PREFIX}/a b"):
        store._client.put_object(Bucket=s3_config.bucket, Key=key, Body=b"")
    store.put("mine", b"")
    assert keys(store) == ["mine"]


def test_an_illegal_key_is_refused(store):
    methods = [store.get, lambda key: store.put(key, b""), lambda key: store.upload(key, [b""])]
    methods.append(lambda key: store.delete([key]))
    for key in ("", "/a", "a/", "a//b", "a/../b", "..", "a/./b", ".", "a b", "ü", "a\n", "a~", "x" * 801):
        for use in methods:
            with pytest.raises(StoreError, match="not a legal object key"):
                use(key)


# Refusals


def every_method(store):
    yield lambda: store.check()
    yield lambda: store.put("a", b"")
    yield lambda: store.put("a", b"", if_absent=True)
    yield lambda: store.upload("a", [b"12"])
    yield lambda: store.upload("a", [bytes(PART_SIZE)])
    yield lambda: store.get("a")
    yield lambda: list(store.list())
    yield lambda: store.delete(["a"])


def test_a_missing_bucket_is_never_taken_for_a_missing_object(config, tmp_path):
    missing = str(tmp_path / "none") if config.type == "local" else "no-such-bucket"
    for use in every_method(open_store(dataclasses.replace(config, bucket=missing))):
        with pytest.raises(
            StoreError, match=r"There is no bucket no-such-bucket|none does not exist\. Create"
        ) as caught:
            use()
        assert type(caught.value) is StoreError


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"secret_key": "wrong"}, "the secret key is wrong. Enter Secret Key again"),
        ({"access_key": "AKIAWRONG"}, "does not know the access key. Enter Access Key"),
    ],
)
def test_wrong_keys_are_denied(s3_config, change, sentence):
    for use in every_method(open_store(dataclasses.replace(s3_config, **change))):
        with pytest.raises(Denied) as caught:
            use()
        assert sentence in str(caught.value)
        assert not caught.value.transient
        assert s3_config.secret_key not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        ("http://127.0.0.1:1", "http://127.0.0.1:1 cannot be reached: it refused the connection. Check Endpoint"),
        ("http://no-such-host.invalid", "its name is unknown. Check Endpoint, or force path-style URL access."),
    ],
)
def test_an_endpoint_that_does_not_answer_is_unreachable(endpoint, sentence):
    config = StoreConfig("s3", "test", "bucket", endpoint=endpoint, access_key="a", secret_key="s3cr3t")
    for use in every_method(S3Store(config, attempts=1)):
        with pytest.raises(Unreachable) as caught:
            use()
        assert sentence in str(caught.value)
        assert caught.value.transient


def test_a_bucket_that_may_only_be_read_names_the_missing_permission(ceph):
    config = config_of(ceph)
    store = open_store(config)
    store.put("a", b"x")
    writes = '"s3:PutObject", "s3:DeleteObject"'
    policy = f"""{{"Version": "2012-10-17", "Statement": [{{"Effect": "Deny", "Principal": "*",
        "Action": [{writes}], "Resource": "arn:aws:s3:::{config.bucket}/*"}}]}}"""
    store._client.put_bucket_policy(Bucket=config.bucket, Policy=policy)
    with pytest.raises(Denied, match=r"does not let .* do PutObject .* allow s3:PutObject"):
        store.put("b", b"y")
    with pytest.raises(Denied, match="allow s3:PutObject"):
        store.upload("b", [bytes(PART_SIZE)])
    with pytest.raises(Denied, match="allow s3:DeleteObject"):
        store.delete(["a"])
    assert store.get("a") == b"x"
    assert [step.name for step in probe(config).steps if not step.ok] == ["Write"]


# Probe


def test_a_good_storage_passes_the_probe_and_is_left_clean(config):
    result = probe(config)
    assert [step.name for step in result.steps] == [
        "Reach the endpoint", "Bucket", "Write", "Read", "List", "Multipart upload", "Delete", "Conditional write",
    ]  # fmt: skip
    assert all(step.ok for step in result.steps), result.steps
    assert result.ok
    assert result.conditional_put
    wait_for_probe()
    assert keys(open_store(dataclasses.replace(config, prefix=""))) == []
    assert leftovers(config) == []


def wait_for_probe():
    """The cleaning up goes on after the answer."""
    for thread in threading.enumerate():
        if thread.name == "probe":
            thread.join(10)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"secret_key": "wrong"}, "Bucket"),
        ({"access_key": "AKIAWRONG"}, "Bucket"),
        ({"bucket": "no-such-bucket"}, "Bucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "Reach the endpoint"),
        ({"endpoint": "127.0.0.1"}, "Reach the endpoint"),
        ({"access_key": ""}, "Reach the endpoint"),
        ({"ca_certificate": "no certificate"}, "Reach the endpoint"),
        ({"prefix": "a b"}, "Reach the endpoint"),
    ],
)
def test_the_probe_stops_at_the_step_that_fails(s3, change, step):
    result = probe(config_of(s3, **change))
    assert not result.ok
    assert not result.conditional_put
    assert [found.name for found in result.steps if not found.ok] == [step] == [result.steps[-1].name]


@pytest.mark.parametrize("looks_first", [True, False])
def test_a_store_whose_conditional_put_is_not_atomic_is_usable_and_found_out(s3, monkeypatch, looks_first):
    put = S3Store.put

    def unsafe(self, key, data, *, if_absent=False):
        self.conditional_put = False
        put(self, key, data, if_absent=if_absent and looks_first)

    monkeypatch.setattr(S3Store, "put", unsafe)
    result = probe(config_of(s3))
    wait_for_probe()
    assert result.ok
    assert not result.conditional_put
    assert "not exactly one won" in result.steps[-1].message


def test_the_probe_is_not_ok_where_a_step_breaks_off(s3, monkeypatch):
    def broken(self, prefix="", after=""):
        raise StoreError("Listing is off.")

    monkeypatch.setattr(S3Store, "list", broken)
    result = probe(config_of(s3))
    wait_for_probe()
    assert not result.ok
    assert (result.steps[-1].name, result.steps[-1].message) == ("List", "Listing is off.")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_probe_is_not_ok_where_it_breaks_itself(s3, monkeypatch):
    def broken(self, prefix="", after=""):
        raise ZeroDivisionError

    monkeypatch.setattr(S3Store, "list", broken)
    result = probe(config_of(s3))
    wait_for_probe()
    assert not result.ok
    assert (result.steps[-1].name, result.steps[-1].ok) == ("List", False)
    assert "An error that Everest did not expect" in result.steps[-1].message
