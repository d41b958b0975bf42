"""Faults on demand, seen by clients over sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from base64 import b64encode
from contextlib import contextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.tcp import Connection

from twisted_registry.testing import AsyncRegistry, Registry, build_image

IMAGE = build_image(files={"a": bytes(range(256)) * 1200})
LAYER = IMAGE.layers[0]
BLOB = f"/v2/app/blobs/{LAYER.digest}"


@pytest.fixture(params=["memory", "filesystem", "tls"])
def registry(request, tmp_path):
    """A registry with an image, whose blobs are sent in each way that there is."""
    storage = tmp_path / "store" if request.param == "filesystem" else None
    with Registry(storage=storage, tls=request.param == "tls") as registry:
        registry.push_image("app:1", IMAGE)
        yield registry


@pytest.fixture
def plain():
    with Registry() as registry:
        registry.push_image("app:1", IMAGE)
        yield registry


@contextmanager
def connected(registry):
    if registry.ssl_context is None:
        connection = http.client.HTTPConnection(registry.host, timeout=20)
    else:
        connection = http.client.HTTPSConnection(
            registry.host, timeout=20, context=registry.ssl_context
        )
    try:
        yield connection
    finally:
        connection.close()


def ask(registry, method="GET", path="/v2/", body=None, headers=None):
    with connected(registry) as connection:
        connection.request(method, path, body, headers or {})
        with connection.getresponse() as response:
            return response, response.read()


def statuses(registry, number, method="GET", path="/v2/"):
    return [ask(registry, method, path)[0].status for _ in range(number)]


# Which requests a fault applies to


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [503, 503, 503, 503]),
        ({"times": 2}, [503, 503, 200, 200]),
        ({"nth": 2}, [200, 503, 200, 200]),
        ({"nth": 2, "times": 2}, [200, 503, 503, 200]),
    ],
)
def test_a_fault_applies_to_some_requests(plain, options, expected):
    fault = plain.faults.fail("GET", "manifests", status=503, **options)
    assert statuses(plain, 1, "HEAD", "/v2/app/manifests/1") == [200]
    assert statuses(plain, 4, "GET", "/v2/app/manifests/1") == expected
    assert statuses(plain, 1) == [200]
    assert fault.hits == expected.count(503)


def test_a_fault_ends_with_its_block(plain):
    with plain.faults.fail() as fault:
        assert plain.faults.active == (fault,)
        assert statuses(plain, 1) == [500]
    assert statuses(plain, 1) == [200]
    assert plain.faults.active == ()
    fault.remove()


def test_all_faults_are_cleared(plain):
    plain.faults.fail()
    plain.faults.fail("GET")
    plain.faults.clear()
    assert statuses(plain, 1) == [200]


@pytest.mark.parametrize(
    "make",
    [
        lambda faults: faults.fail("get"),
        lambda faults: faults.fail("GET", "manifests?x=1"),
        lambda faults: faults.fail(nth=0),
        lambda faults: faults.fail(times=0),
        lambda faults: faults.delay(-1),
        lambda faults: faults.throttle(0),
        lambda faults: faults.truncate(after=-1),
        lambda faults: faults.reset(after=-1),
        lambda faults: faults.reset(received=0),
        lambda faults: faults.corrupt(at=-1),
        lambda faults: faults.rate_limit(-1),
        lambda faults: faults.rate_limit(1, per=0),
    ],
)
def test_wrong_arguments_are_refused(make):
    faults = Registry().faults
    with pytest.raises(ValueError, match="expected"):
        make(faults)
    assert faults.active == ()


# fail


@pytest.mark.parametrize(
    ("status", "code"), [(401, "UNAUTHORIZED"), (429, "TOOMANYREQUESTS"), (500, "UNKNOWN")]
)
def test_an_error_fits_the_status(plain, status, code):
    plain.faults.fail(status=status, headers={"Retry-After": "0"})
    response, body = ask(plain)
    assert (response.status, response.getheader("Retry-After")) == (status, "0")
    assert json.loads(body)["errors"][0]["code"] == code


@pytest.mark.parametrize(
    ("body", "content", "media_type"),
    [
        ("sorry", b"sorry", "text/plain; charset=utf-8"),
        (b"\xff", b"\xff", "application/octet-stream"),
        ({"a": 1}, b'{"a":1}', "application/json"),
        ("", b"", "text/plain; charset=utf-8"),
    ],
)
def test_the_body_of_an_error(plain, body, content, media_type):
    plain.faults.fail(status=418, body=body)
    response, received = ask(plain)
    assert (received, response.getheader("Content-Type")) == (content, media_type)
    response, received = ask(plain, "HEAD")
    assert (response.status, received) == (418, b"")


def test_a_refused_push_is_not_stored(registry):
    registry.faults.fail("PUT", "manifests", status=500, times=1)
    for status in (500, 201):
        response, _ = ask(
            registry,
            "PUT",
            "/v2/app/manifests/2",
            IMAGE.manifest.read(),
            {"Content-Type": IMAGE.media_type},
        )
        assert response.status == status
        assert ("2" in registry.tags("app")) is (status == 201)


# delay, throttle: in the time of the registry's reactor, which is compared with the least that
# they may take


def test_a_delay(plain):
    plain.faults.delay(0.3, "GET", "manifests")
    began = time.monotonic()
    assert statuses(plain, 1, "GET", "/v2/app/manifests/1") == [200]
    assert time.monotonic() - began >= 0.3


def test_a_client_may_leave_during_a_delay(plain):
    plain.faults.delay(60)
    with connected(plain) as connection:
        connection.request("GET", "/v2/")
    plain.faults.clear()
    assert statuses(plain, 1) == [200]


def test_a_throttled_response(registry):
    registry.faults.throttle(1_000_000, "GET", "blobs")
    began = time.monotonic()
    response, body = ask(registry, "GET", BLOB)
    assert (response.status, body) == (200, LAYER.read())
    assert time.monotonic() - began >= 0.9 * LAYER.size / 1_000_000 - 0.05


def test_a_throttled_upload(registry):
    registry.faults.throttle(1_000_000, "POST", "uploads")
    body = build_image(files={"b": bytes(300_000)}).layers[0]
    began = time.monotonic()
    response, _ = ask(registry, "POST", f"/v2/app/blobs/uploads/?digest={body.digest}", body.read())
    assert response.status == 201
    assert time.monotonic() - began >= 0.5 * body.size / 1_000_000
    assert registry.blob("app", body.digest) == body.read()


def test_a_throttled_response_without_a_body(registry):
    registry.faults.throttle(10)
    with connected(registry) as connection:
        for _ in range(2):
            connection.request("HEAD", BLOB)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"")
            assert response.getheader("Content-Length") == str(LAYER.size)
            connection.request("DELETE", f"/v2/app/blobs/sha256:{'0' * 64}")
            assert connection.getresponse().read(5) == b'{"err'
            connection.close()


def test_a_throttled_response_does_not_keep_the_registry_running():
    with Registry() as registry:
        registry.push_image("app:1", IMAGE)
        registry.faults.throttle(1, "GET", "blobs")
        with connected(registry) as connection:
            connection.request("GET", BLOB)
            with connection.getresponse() as response:
                assert len(response.read(1)) == 1
    assert not [each for each in threading.enumerate() if each.name == "registry"]


# truncate, reset


def receive(registry, path=BLOB):
    """Return the bytes of a body, and the error that ended it."""
    with connected(registry) as connection:
        connection.request("GET", path)
        received = b""
        with connection.getresponse() as response:
            try:
                while piece := response.read1(65536):
                    received += piece
            except (OSError, http.client.IncompleteRead) as error:
                return received, type(error)
        return received, None


@pytest.mark.parametrize("after", [1, 1000, 200_000])
def test_a_truncated_response(registry, after):
    registry.faults.truncate("GET", "blobs", after=after, times=1)
    received, error = receive(registry)
    assert received == LAYER.read()[:after]
    # http.client reports an early end of the connection as the end of the body.
    assert error in {None, http.client.IncompleteRead}
    assert receive(registry) == (LAYER.read(), None)


@pytest.mark.parametrize("after", [1, 1000, 200_000])
def test_a_reset_response(plain, after):
    plain.faults.reset("GET", "blobs", after=after, times=1)
    assert receive(plain) == (LAYER.read()[:after], ConnectionResetError)
    assert receive(plain) == (LAYER.read(), None)


def test_a_reset_within_tls_and_of_files(registry):
    registry.faults.reset("GET", "blobs", after=1000)
    received, _ = receive(registry)
    assert received == LAYER.read()[:1000]


def test_a_body_that_is_not_longer_is_complete(registry):
    registry.faults.reset("GET", "blobs", after=LAYER.size)
    assert receive(registry) == (LAYER.read(), None)


def test_no_response_at_all(registry):
    registry.faults.truncate("PUT", "manifests", times=1)
    registry.faults.reset("PUT", "manifests", times=1, nth=2)
    for tag in ("2", "3"):
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            ask(
                registry,
                "PUT",
                f"/v2/app/manifests/{tag}",
                IMAGE.manifest.read(),
                {"Content-Type": IMAGE.media_type},
            )
    # The registry has carried them out.
    assert registry.tags("app") == ["1", "2", "3"]
    assert [each.status for each in registry.journal.find("PUT")] == [None, None]


def test_a_head_response_is_cut_only_before_its_beginning(plain):
    plain.faults.truncate("HEAD", "blobs", after=1)
    assert statuses(plain, 1, "HEAD", BLOB) == [200]
    plain.faults.clear()
    plain.faults.truncate("HEAD", "blobs", after=0)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(plain, "HEAD", BLOB)


@pytest.mark.parametrize("received", [1, 1000, 300_000])
def test_an_upload_is_reset_and_resumed(registry, received):
    content = build_image(files={"b": bytes(range(256)) * 2000}).layers[0]
    response, _ = ask(registry, "POST", "/v2/app/blobs/uploads/")
    location = response.getheader("Location").partition(registry.host)[2]
    registry.faults.reset("PATCH", "uploads", received=received, times=1)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(registry, "PATCH", location, content.read())
    response, _ = ask(registry, "GET", location)
    assert response.getheader("Range") == f"0-{received - 1}"
    location = response.getheader("Location").partition(registry.host)[2]
    response, _ = ask(
        registry, "PUT", f"{location}&digest={content.digest}", content.read()[received:]
    )
    assert response.status == 201
    assert registry.blob("app", content.digest) == content.read()


# corrupt


@pytest.mark.parametrize("at", [0, 5, 250_000])
def test_a_corrupted_response(registry, at):
    registry.faults.corrupt(at=at, times=1)
    _, body = ask(registry, "GET", BLOB)
    expected = LAYER.read()
    assert body[at] == expected[at] ^ 1
    assert body[:at] + body[at + 1 :] == expected[:at] + expected[at + 1 :]
    assert ask(registry, "GET", BLOB)[1] == expected


def test_faults_add_up(plain):
    plain.faults.corrupt(at=1)
    plain.faults.truncate("GET", "blobs", after=3)
    plain.faults.throttle(1000, "GET", "blobs")
    received, _ = receive(plain)
    start = LAYER.read()[:3]
    assert received == bytes([start[0], start[1] ^ 1, start[2]])


# rate_limit


def test_a_rate_limit(plain):
    limit = plain.faults.rate_limit(2, "GET", "manifests")
    assert statuses(plain, 3, "GET", "/v2/app/manifests/1") == [200, 200, 429]
    response, body = ask(plain, "GET", "/v2/app/manifests/1")
    assert 1 <= int(response.getheader("Retry-After")) <= 60
    assert json.loads(body)["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert statuses(plain, 1) == [200]
    limit.remove()
    assert statuses(plain, 1, "GET", "/v2/app/manifests/1") == [200]


def test_a_rate_limit_begins_again_after_its_period(plain):
    plain.faults.rate_limit(1, per=0.05)
    deadline = time.monotonic() + 20
    seen = [ask(plain)[0].status]
    while seen.count(200) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        seen += statuses(plain, 1)
    assert seen.count(200) == 2


# expire_tokens


def fetch_token(registry, scope="repository:app:pull"):
    credentials = b64encode(":".join(registry.auth).encode()).decode()
    response, body = ask(
        registry,
        "GET",
        f"/auth/token?service={registry.host}&scope={scope}",
        headers={"Authorization": f"Basic {credentials}"},
    )
    assert response.status == 200, body
    return json.loads(body)["token"]


def test_expired_tokens_are_refused():
    with Registry(token_auth=True) as registry:
        registry.push_image("app:1", IMAGE)
        used, unused = fetch_token(registry), fetch_token(registry)

        def pull(token):
            headers = {"Authorization": f"Bearer {token}"}
            return ask(registry, "GET", "/v2/app/manifests/1", headers=headers)[0]

        assert pull(used).status == 200
        registry.faults.expire_tokens()
        for token in (used, unused):
            response = pull(token)
            assert response.status == 401
            assert response.getheader("WWW-Authenticate").startswith("Bearer realm=")
        assert pull(fetch_token(registry)).status == 200


# Together with the rest


def test_a_faulty_connection_is_usable_again(plain):
    plain.faults.throttle(10_000_000, "GET", "blobs")
    plain.faults.corrupt(at=0)
    with connected(plain) as connection:
        for _ in range(3):
            connection.request("GET", BLOB)
            assert len(connection.getresponse().read()) == LAYER.size
            connection.request("GET", "/v2/_catalog")
            assert json.loads(connection.getresponse().read()) == {"repositories": ["app"]}


def test_ranges_are_faulty_too(registry):
    registry.faults.corrupt(at=1)
    response, body = ask(registry, "GET", BLOB, headers={"Range": "bytes=100-199"})
    assert response.status == 206
    expected = LAYER.read()[100:200]
    assert body == expected[:1] + bytes([expected[1] ^ 1]) + expected[2:]


def test_many_clients_at_once(plain):
    plain.faults.throttle(2_000_000, "GET", "blobs")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(ask(plain, "GET", BLOB)[1]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [LAYER.read()] * 8


def test_a_malformed_request_does_not_reach_the_faults(plain):
    fault = plain.faults.fail()
    with socket.create_connection(plain.host.split(":"), 20) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b" 400 " in client.recv(1000)
    assert (fault.hits, len(plain.journal)) == (0, 0)


# In a reactor that goes on


@pytest.mark.parametrize(
    ("make", "request_line", "body"),
    [
        (lambda faults: faults.delay(60), "GET /v2/", b""),
        (lambda faults: faults.throttle(1, "GET", "blobs"), f"GET {BLOB}", b""),
        (
            lambda faults: faults.throttle(1, "POST", "uploads"),
            f"POST /v2/app/blobs/uploads/?digest={LAYER.digest}",
            LAYER.read()[:50_000],
        ),
        (lambda faults: faults.reset("GET", "blobs", after=5), f"GET {BLOB}", b""),
    ],
    ids=["delay", "throttled response", "throttled upload", "reset"],
)
@pytest_twisted.ensureDeferred
async def test_nothing_remains_in_the_reactor(make, request_line, body):
    before = set(reactor.getDelayedCalls())
    async with AsyncRegistry(reactor) as registry:
        await registry.contents.push_image("app:1", IMAGE)
        make(registry.faults)
        host, _, port = registry.host.partition(":")
        with socket.create_connection((host, int(port)), 20) as client:
            length = f"Content-Length: {LAYER.size}\r\n" if body else ""
            client.sendall(f"{request_line} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode() + body)
            while not len(registry.journal):
                await deferLater(reactor, 0.01)
            await deferLater(reactor, 0.05)
            await registry.stopService()
    assert set(reactor.getDelayedCalls()) <= before
    watched = [*reactor.getReaders(), *reactor.getWriters()]
    assert not [each for each in watched if isinstance(each, Connection)]
