"""What real servers do not do on demand: a scripted server that refuses, stumbles, cuts off and dawdles."""

import base64
import contextlib
import hashlib
import ssl
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from everest.demo.tls import write_certificates
from storages.stores import (
    AlreadyExists,
    Conflict,
    Denied,
    NotFound,
    StoreConfig,
    StoreError,
    Unreachable,
    Untrusted,
    probe,
)
from storages.stores.s3 import PART_SIZE, S3Store

Request = namedtuple("Request", "method path headers body")
STARTED = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
FINISHED = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"


def answer(status=200, body="", headers=(), cut=0, wait=0.0):
    """cut: bytes that are promised and do not come."""
    return status, body.encode(), dict(headers), cut, wait


WRITTEN = answer(200, "", {"ETag": "e"})


def error(status, code, extra=""):
    return answer(status, f"<Error><Code>{code}</Code><Message>No.</Message>{extra}</Error>")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, self.headers, body)
        self.server.requests.append(request)
        status, body, headers, cut, wait = self.server.respond(request)
        time.sleep(wait)
        if not status:  # hang up without a word
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body) + cut))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)
        self.close_connection = bool(cut)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    scheme = "http"

    def handle_error(self, request, client_address):
        pass  # the client went away: that is what is tested

    def play(self, *script):
        """Answer in turn as `script` says, the last for ever: answers, or functions from a request to one."""
        self.requests, rest, turn = [], list(script), threading.Lock()

        def respond(request):
            with turn:
                now = rest.pop(0) if len(rest) > 1 else rest[0]
            return now(request) if callable(now) else now

        self.respond = respond

    def config(self, **changes):
        endpoint = f"{self.scheme}://{self.server_address[0]}:{self.server_port}"
        given = {"endpoint": endpoint, "region": "eu-west-1", "access_key": "AKIA", "secret_key": "s3cr3t"}
        return StoreConfig("s3", "test", "bucket", **{"conditional_put": True, **given, **changes})

    def store(self, attempts=1, timeout=10, **changes):
        return S3Store(self.config(**changes), attempts=attempts, timeout=timeout)

    @property
    def methods(self):
        return [request.method for request in self.requests]


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server():
    with serving(Server(("127.0.0.1", 0), Handler)) as running:
        yield running


@pytest.fixture
def tls_server(tmp_path, request):
    """Its certificate is for 127.0.0.1 and signed by an authority that nobody knows."""
    host = getattr(request, "param", "127.0.0.1")
    write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server-key.pem")
    running = Server((host, 0), Handler)
    running.scheme = "https"
    running.socket = context.wrap_socket(running.socket, server_side=True)
    running.authority = (tmp_path / "ca.pem").read_text()
    with serving(running):
        running.play(WRITTEN)
        yield running


# Refusals


@pytest.mark.parametrize(
    ("refusal", "kind", "sentence"),
    [
        (error(412, "PreconditionFailed"), AlreadyExists, "v1/a is taken."),
        (error(409, "ConditionalRequestConflict"), Conflict, "Another write to v1/a is under way. Try again."),
        (error(409, "OperationAborted"), Conflict, "Another change of v1/a is under way. Try again."),
        (error(403, "AccessDenied"), Denied, "does not let this access key do PutObject in bucket bucket (No.). Check"),
        (error(403, "RequestTimeTooSkewed"), Denied, "This machine's clock is wrong"),
        (error(400, "ExpiredToken"), Denied, "The access key has expired."),
        (error(404, "NoSuchBucket"), StoreError, "There is no bucket bucket at http://127.0.0.1"),
        (error(503, "SlowDown"), Unreachable, "asks to slow down. Try again later"),
        (error(500, "InternalError"), Unreachable, "answered PutObject with InternalError: No."),
        (error(400, "BadDigest"), Unreachable, "v1/a was altered on its way"),
        (error(400, "XAmzContentSHA256Mismatch"), Unreachable, "v1/a was altered on its way"),
        (error(403, "QuotaExceeded"), StoreError, "The quota of bucket bucket is used up."),
        (error(507, "XMinioStorageFull"), StoreError, "The quota of bucket bucket is used up."),
        (error(501, "NotImplemented"), StoreError, "answered PutObject with NotImplemented: No."),
        (
            error(400, "AuthorizationHeaderMalformed", "<Region>eu-north-1</Region>"),
            StoreError,
            "Bucket bucket is not in region eu-west-1. Correct Region. The store names region eu-north-1.",
        ),
        (
            answer(301, "<Error><Code>PermanentRedirect</Code></Error>", {"x-amz-bucket-region": "eu-north-1"}),
            StoreError,
            "Correct Region and Endpoint. The store names region eu-north-1.",
        ),
    ],
)
def test_a_refusal_is_a_sentence_of_its_kind(server, refusal, kind, sentence):
    server.play(refusal)
    with pytest.raises(StoreError) as caught:
        server.store().put("v1/a", b"x", if_absent=True)
    assert sentence in str(caught.value)
    assert type(caught.value) is kind
    assert caught.value.transient == issubclass(kind, Unreachable)
    assert "s3cr3t" not in str(caught.value)


def test_a_wrong_region_is_named_where_only_a_header_tells_it(server):
    headers = {"x-amz-bucket-region": "eu-north-1"}
    server.play(lambda request: answer(400 if request.method == "HEAD" else 301, "", headers))
    with pytest.raises(StoreError, match="The store names region eu-north-1"):
        server.store().check()


@pytest.mark.parametrize(
    "page",
    [
        answer(404, "<html>Not here</html>"),
        answer(404),
        answer(200, "<html>Hello</html>"),
        answer(200, "<br>Hello"),
    ],
)
def test_the_page_of_a_proxy_is_no_answer_of_a_store(server, page):
    """Above all it is not an empty listing, nor word that an object is missing, nor that one is safe."""
    server.play(page)
    store = server.store()
    uses = [lambda: list(store.list()), lambda: store.put("a", b"x"), lambda: store.upload("a", [bytes(PART_SIZE)])]
    if page[0] == 404:
        uses.append(lambda: store.get("a"))
    for use in uses:
        with pytest.raises(Unreachable, match=r"does not answer as an S3 store does|answered .* with 500"):
            use()


def test_a_listing_that_is_cut_off_is_an_error(server):
    server.play(answer(200, "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key>", cut=20))
    with pytest.raises(Unreachable):
        list(server.store().list())


def test_a_missing_key_is_not_found(server):
    server.play(error(404, "NoSuchKey"))
    with pytest.raises(NotFound, match="There is no object v1/a in bucket bucket"):
        server.store().get("v1/a")


# Stumbling


@pytest.mark.parametrize("stumble", [error(503, "SlowDown"), error(500, "InternalError"), answer(status=0)])
def test_a_store_that_stumbles_once_is_asked_again(server, stumble):
    server.play(stumble, WRITTEN)
    server.store(attempts=3).put("a", b"data")
    assert [request.body for request in server.requests] == [b"data", b"data"]


def test_a_store_that_keeps_stumbling_is_not_asked_for_ever(server):
    server.play(error(503, "SlowDown"))
    with pytest.raises(Unreachable):
        server.store(attempts=2).put("a", b"data")
    assert len(server.requests) == 2


def test_a_body_that_breaks_off_is_read_again(server):
    server.play(answer(200, "half", cut=4), answer(200, "half", cut=4), answer(200, "all of it"))
    assert server.store().get("a") == b"all of it"


def test_a_body_that_always_breaks_off_is_an_error_and_never_data(server):
    server.play(answer(200, "half", cut=4))
    with pytest.raises(Unreachable, match="the connection broke off"):
        server.store().get("a")
    assert len(server.requests) == 3


def test_a_store_that_does_not_answer_in_time_is_unreachable(server):
    server.play(answer(wait=1.5))
    started = time.monotonic()
    with pytest.raises(Unreachable, match="no answer in time"):
        server.store(timeout=0.05).put("a", b"data")
    assert time.monotonic() - started < 1.4


# What is sent, and how answers are read


@pytest.mark.parametrize("conditional", [True, False])
def test_a_put_carries_its_plain_checksum_and_no_trailer(server, conditional):
    server.play(lambda request: answer(404) if request.method == "HEAD" else WRITTEN)
    server.store(conditional_put=conditional).put("a", b"data", if_absent=True)
    sent = server.requests[-1]
    assert sent.headers["x-amz-checksum-sha256"] == base64.b64encode(hashlib.sha256(b"data").digest()).decode()
    assert sent.headers["If-None-Match"] == ("*" if conditional else None)
    assert server.methods == (["PUT"] if conditional else ["HEAD", "PUT"])
    assert sent.body == b"data"
    for name in ("x-amz-trailer", "Content-Encoding", "x-amz-sdk-checksum-algorithm"):
        assert sent.headers[name] is None


def test_a_content_encoding_that_a_store_kept_is_not_looked_at(server):
    server.play(answer(200, "as it was put", {"Content-Encoding": "aws-chunked"}))
    assert server.store().get("a") == b"as it was put"


def test_a_whole_object_is_not_taken_for_a_part_of_it(server):
    server.play(answer(200, "0123456789"))
    with pytest.raises(StoreError, match="A part of a was asked for and the whole came"):
        server.store().get("a", 5, 2)


def test_a_listing_that_is_out_of_order_is_refused(server):
    entry = "<Contents><Key>{}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
    server.play(
        answer(
            200,
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{entry.format('b')}{entry.format('a')}</ListBucketResult>",
        )
    )
    with pytest.raises(StoreError, match="not listed in key order"):
        list(server.store().list())


def test_path_style_is_used_where_it_is_asked_for(server):
    """Without it the bucket goes before the host's name, as some stores want it."""
    for path_style, start in ((True, "http://s3.test/bucket/a?"), (False, "http://bucket.s3.test/a?")):
        client = server.store(path_style=path_style, endpoint="http://s3.test")._client
        assert client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "a"}).startswith(start)


# Uploads


def upload_of(server, parts=3, **answers):
    """Play an upload; `answers` replace those to start, part, finish, head and abort."""

    def respond(request):
        if request.method == "POST":
            name = "start" if "uploads" in request.path else "finish"
        else:
            name = {"PUT": "part", "HEAD": "head", "DELETE": "abort"}[request.method]
        usual = {"start": answer(200, STARTED), "part": WRITTEN, "finish": answer(200, FINISHED)}
        given = answers.get(name, usual.get(name, answer(204)))
        return given(request) if callable(given) else given

    server.play(respond)
    return server.store().upload("a", (bytes(PART_SIZE) for _ in range(parts)))


def test_an_upload_that_is_refused_halfway_is_given_up(server):
    def part(request):
        return error(403, "AccessDenied") if "partNumber=2" in request.path else WRITTEN

    with pytest.raises(Denied):
        upload_of(server, parts=30, part=part)
    assert server.methods[-1] == "DELETE"
    assert server.methods.count("DELETE") == 1
    assert server.methods.count("PUT") < 15


def test_an_upload_that_cannot_be_finished_is_given_up(server):
    with pytest.raises(Unreachable):
        upload_of(server, finish=error(500, "InternalError"))
    assert server.methods[-1] == "DELETE"


def test_what_made_an_upload_fail_is_told_though_giving_up_fails_too(server):
    with pytest.raises(Unreachable, match="UploadPart"):
        upload_of(server, part=error(500, "InternalError"), abort=error(403, "AccessDenied"))


def test_an_upload_whose_last_answer_was_lost_is_not_sent_again(server):
    size = {"Content-Length": str(3 * PART_SIZE)}
    assert upload_of(server, finish=error(404, "NoSuchUpload"), head=answer(200, "", size)) == 3 * PART_SIZE
    with pytest.raises(Unreachable, match="has lost the upload of a"):
        upload_of(server, finish=error(404, "NoSuchUpload"), head=answer(404))


def test_parts_carry_their_checksum_where_the_store_takes_it(server):
    taken = answer(200, STARTED, {"x-amz-checksum-algorithm": "SHA256"})
    upload_of(server, parts=2, start=taken)
    checksum = base64.b64encode(hashlib.sha256(bytes(PART_SIZE)).digest()).decode()
    parts = [request for request in server.requests if request.method == "PUT"]
    assert [request.headers["x-amz-checksum-sha256"] for request in parts] == [checksum] * 2
    assert server.requests[-1].body.count(f"<ChecksumSHA256>{checksum}</ChecksumSHA256>".encode()) == 2


def test_parts_carry_none_where_the_store_does_not_say_that_it_takes_it(server):
    upload_of(server, parts=2)
    sent = [name.lower() for request in server.requests if request.method == "PUT" for name in request.headers]
    assert "x-amz-content-sha256" in sent
    assert not [name for name in sent if "checksum" in name or name in ("x-amz-trailer", "content-encoding")]
    assert b"ChecksumSHA256" not in server.requests[-1].body


def test_a_store_that_refuses_checksums_gets_an_upload_without(server):
    def start(request):
        refused = request.headers["x-amz-checksum-algorithm"]
        return error(400, "InvalidArgument") if refused else answer(200, STARTED)

    assert upload_of(server, start=start) == 3 * PART_SIZE


# Deleting


@pytest.mark.parametrize("refusal", [error(501, "NotImplemented"), error(400, "MissingContentMD5")])
def test_a_store_without_batches_gets_single_deletes(server, refusal):
    server.play(lambda request: refusal if request.method == "POST" else answer(204))
    store = server.store()
    store.delete(["a", "b"])
    store.delete(["c"])
    assert server.methods == ["POST", "DELETE", "DELETE", "DELETE"]


def test_a_delete_that_is_refused_for_one_key_is_an_error(server):
    failed = "<Error><Key>{}</Key><Code>{}</Code><Message>{}</Message></Error>"
    gone, kept = failed.format("a", "NoSuchKey", ""), failed.format("b", "AccessDenied", "Object is locked")
    server.play(answer(200, f"<DeleteResult>{gone}</DeleteResult>"))
    server.store().delete(["a", "b"])
    server.play(answer(200, f"<DeleteResult>{gone}{kept}</DeleteResult>"))
    with pytest.raises(Denied, match=r"DeleteObjects in bucket bucket \(Object is locked\)"):
        server.store().delete(["a", "b"])


# TLS


def test_a_certificate_that_nobody_knows_is_not_trusted(tls_server):
    with pytest.raises(Untrusted, match="is not trusted: enter the CA certificate") as caught:
        tls_server.store().check()
    assert not caught.value.transient
    assert tls_server.requests == []
    (step,) = probe(tls_server.config()).steps
    assert (step.name, step.ok) == ("Reach the endpoint", False)


def test_a_certificate_is_trusted_by_its_authority(tls_server):
    tls_server.store(ca_certificate=tls_server.authority).put("a", b"x")
    assert tls_server.methods == ["PUT"]


@pytest.mark.parametrize("tls_server", ["127.0.0.2"], indirect=True)
def test_a_certificate_for_another_name_is_refused(tls_server):
    with pytest.raises(Untrusted, match="Its certificate is for another name"):
        tls_server.store(ca_certificate=tls_server.authority).put("a", b"x")


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_a_certificate_is_not_looked_at_where_that_is_switched_off(tls_server):
    tls_server.store(verify_tls=False).put("a", b"x")
    assert tls_server.methods == ["PUT"]


def test_tls_with_a_server_that_speaks_none_is_a_sentence(server):
    server.play(answer())
    with pytest.raises(Untrusted, match="See whether the endpoint speaks TLS"):
        server.store(endpoint=f"https://127.0.0.1:{server.server_port}").put("a", b"x")


def test_the_certificate_file_goes_with_the_store(tls_server):
    store = tls_server.store(ca_certificate=tls_server.authority)
    file = Path(store._verify)
    assert file.stat().st_mode & 0o777 == 0o600
    del store
    assert not file.exists()


# Time limit


def test_the_probe_ends_in_time_and_says_so(server):
    server.play(lambda request: answer(wait=0 if request.method == "HEAD" else 2))
    started = time.monotonic()
    result = probe(server.config(), time_limit=0.5)
    assert time.monotonic() - started < 1.5
    assert not result.ok
    assert "Not done within 0.5 s in all" in result.steps[-1].message
    for thread in threading.enumerate():
        if thread.name == "probe":
            thread.join(20)
