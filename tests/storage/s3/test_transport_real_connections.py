"""The client over network connections to a server that misbehaves."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.web.client import URI, BrowserLikePolicyForHTTPS

from tests.storage.s3.fake_agent import CREDENTIALS, Sink
from tests.storage.s3.scripted_server import Script, Store, answer, drop, silence
from tests.support.self_signed import self_signed
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.connections import READ_BUFFER_BYTES, StoreEndpointFactory
from twisted_registry.storage.s3.errors import InvalidResponse, NotFound, S3Error, Unreachable
from twisted_registry.storage.s3.sender import Backoff, Sender
from twisted_registry.storage.s3.transport import Timeouts, make_transport

CONTENT = os.urandom(3_000_000)
LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.fixture
def store():
    return Store()


async def connected(store, port, scheme="http", verify=True, timeouts=None):
    timeouts = timeouts or Timeouts(connect_s=5, response_s=5, idle_s=5)
    return S3Client(
        Sender(
            reactor,
            make_transport(reactor, verify=verify, timeouts=timeouts),
            endpoint_address("images", f"{scheme}://127.0.0.1:{port.getHost().port}"),
            CREDENTIALS,
            "tests/1",
            Backoff(attempts=3, base_s=0.001, slow_base_s=0.001),
        )
    )


@pytest_twisted.async_yield_fixture
async def port(store):
    port = reactor.listenTCP(0, store, interface="127.0.0.1")
    yield port
    await port.stopListening()
    for connection in store.connections:
        if not connection.lost.called:
            connection.transport.abortConnection()
        await connection.lost


@pytest_twisted.async_yield_fixture
async def client(store, port):
    client = await connected(store, port)
    yield client
    await client.close()


@pytest_twisted.async_yield_fixture
async def impatient(store, port):
    client = await connected(
        store, port, timeouts=Timeouts(connect_s=1, response_s=0.2, idle_s=0.2)
    )
    yield client
    await client.close()


async def whole(client, key="a"):
    body = await client.get_object(key)
    return await body.collect(len(CONTENT))


@pytest_twisted.ensureDeferred
async def test_connections_are_reused(store, client):
    store.scripts = [
        answer(body=b"one"),
        answer(404, b"<Error><Code>NoSuchKey</Code></Error>"),
        answer(headers="ETag: x\r\n"),
        answer(204),
    ]
    assert await whole(client) == b"one"
    with pytest.raises(NotFound):
        await whole(client)
    assert await client.put_object("a", b"") == "x"
    await client.delete_object("a")
    assert len(store.connections) == 1
    assert [request[0] for request in store.requests] == [
        "GET /images/a HTTP/1.1",
        "GET /images/a HTTP/1.1",
        "PUT /images/a HTTP/1.1",
        "DELETE /images/a HTTP/1.1",
    ]
    _, fields, _ = store.requests[2]
    assert fields[b"content-length"] == b"0"
    assert b"transfer-encoding" not in fields
    assert b"accept-encoding" not in fields


@pytest_twisted.ensureDeferred
async def test_path_is_sent_as_it_was_signed(store, client):
    store.scripts = [answer(body=b"x")]
    await whole(client, "a/../b//c d;e=f?g#h%2Fü~*'()@:!$&,")
    assert store.requests[0][0] == (
        "GET /images/a/../b//c%20d%3Be%3Df%3Fg%23h%252F%C3%BC~%2A%27%28%29%40%3A%21%24%26%2C"
        " HTTP/1.1"
    )


@pytest_twisted.ensureDeferred
async def test_chunked_response(store, client):
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LISTING), LISTING)
    store.scripts = [answer(body=body, length="none", headers="Transfer-Encoding: chunked\r\n")]
    assert (await client.list_objects("")).objects == ()


@pytest_twisted.ensureDeferred
async def test_retry_sends_the_whole_body_again(store, client):
    pieces = [CONTENT[:1000], CONTENT[1000:2_000_000], CONTENT[2_000_000:]]
    store.scripts = [drop(early=True), drop(), answer(headers="ETag: x\r\n")]
    assert await client.put_object("a", pieces) == "x"
    assert store.scripts == []
    assert [body for _, _, body in store.requests] == [CONTENT, CONTENT]


@pytest_twisted.ensureDeferred
async def test_refusal_before_the_body_was_sent_is_retried(store, client):
    early = answer(503, b"<Error><Code>SlowDown</Code></Error>", then="loseConnection")
    early.early = True
    store.scripts = [early, answer(headers="ETag: x\r\n")]
    assert await client.put_object("a", CONTENT) == "x"


@pytest_twisted.ensureDeferred
async def test_closed_idle_connection_is_replaced(store, client):
    store.scripts = [answer(body=b"one"), drop(), answer(body=b"two")]
    assert await whole(client) == b"one"
    assert await whole(client) == b"two"


@pytest.mark.parametrize(
    "script",
    [
        drop,
        lambda: answer(body=b"", length=5, then="abortConnection"),
        lambda: answer(503, b"<Error><Code>SlowDown</Code></Error>"),
        lambda: answer(500),
        lambda: Script(lambda connection: connection.transport.write(b"nonsense\r\n\r\n")),
        lambda: Script(lambda connection: connection.transport.loseConnection()),
    ],
)
@pytest_twisted.ensureDeferred
async def test_transient_failures_are_retried_and_then_raised(store, client, script):
    store.scripts = [script(), script(), answer(body=LISTING)]
    assert (await client.list_objects("")).objects == ()
    store.scripts = [script(), script(), script()]
    with pytest.raises(S3Error) as caught:
        await client.list_objects("")
    assert caught.value.retryable
    assert store.scripts == []


@pytest.mark.parametrize("then", ["loseConnection", "abortConnection"])
@pytest_twisted.ensureDeferred
async def test_truncated_body_is_an_error(store, client, then):
    for taken in (0, 1, len(CONTENT) - 1):
        store.scripts = [answer(body=CONTENT[:taken], length=len(CONTENT), then=then)]
        sink = Sink()
        with pytest.raises(Unreachable) as caught:
            # An abort may discard the head of the response as well.
            await (await client.get_object("a")).deliver(sink)
        assert caught.value.retryable
        assert CONTENT.startswith(sink.content)
        assert sink.producer is None


@pytest_twisted.ensureDeferred
async def test_body_without_length_and_end_is_an_error(store, client):
    store.scripts = [
        answer(body=LISTING, length="none", then="loseConnection"),
        answer(body=LISTING),
    ]
    await client.list_objects("")
    assert store.scripts == []
    store.scripts = [answer(body=b"x", length="none", then="loseConnection") for _ in range(3)]
    with pytest.raises(InvalidResponse):
        await client.get_object("a")


@pytest_twisted.ensureDeferred
async def test_data_after_a_body_is_not_a_response(store, client):
    store.scripts = [answer(body=b"onetwo", length=3), answer(body=b"two")]
    assert await whole(client) == b"one"
    assert await whole(client) == b"two"


@pytest_twisted.ensureDeferred
async def test_response_timeout_is_retried(store, impatient):
    store.scripts = [silence(), answer(body=b"one")]
    assert await whole(impatient) == b"one"
    assert len(store.connections) == 2
    await store.connections[0].lost


@pytest_twisted.ensureDeferred
async def test_stalled_upload_is_retried(store, impatient):
    def stop(connection):
        connection.transport.pauseProducing()

    store.scripts = [Script(stop, early=True), answer(headers="ETag: x\r\n")]
    assert await impatient.put_object("a", [CONTENT] * 5) == "x"
    # The server notices the lost connection only when it reads.
    store.connections[0].transport.resumeProducing()
    await store.connections[0].lost


@pytest_twisted.ensureDeferred
async def test_idle_body_times_out(store, impatient):
    store.scripts = [answer(body=CONTENT[:10], length=20)]
    body = await impatient.get_object("a")
    with pytest.raises(Unreachable, match=r"no data for 0.2 s after 10 of 20 bytes"):
        await body.collect(20)
    await store.connections[0].lost


class Endless:
    """Writes until paused, and counts."""

    def __init__(self, transport):
        self.transport = transport
        self.written = 0
        self.paused = False
        transport.registerProducer(self, True)

    def resumeProducing(self):
        self.paused = False
        while not self.paused:
            self.written += 100_000
            self.transport.write(b"x" * 100_000)

    def pauseProducing(self):
        self.paused = True

    def stopProducing(self):
        self.paused = True


def endless(writers):
    def act(connection):
        connection.transport.write(b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n")
        writers.append(Endless(connection.transport))
        writers[0].resumeProducing()

    return Script(act)


@pytest.mark.parametrize("secure", [False, True])
@pytest_twisted.ensureDeferred
async def test_backpressure_and_cancellation_of_a_body(store, port, client, secure, certificate):
    writers = []
    store.scripts = [endless(writers)]
    listening = None
    if secure:
        listening = reactor.listenSSL(0, store, certificate.options(), interface="127.0.0.1")
        client = await connected(store, listening, "https", verify=False)
    body, sink = await client.get_object("a"), Sink(pause_after=1)
    delivering = body.deliver(sink)
    await deferLater(reactor, 0.3)
    before = writers[0].written
    assert before < 30_000_000
    await deferLater(reactor, 0.2)
    assert writers[0].written == before
    assert len(sink.content) < 1_000_000
    sink.pause_after = None
    sink.producer.resumeProducing()
    await deferLater(reactor, 0.2)
    assert writers[0].written > before
    sink.producer.pauseProducing()
    await deferLater(reactor, 0.1)
    delivering.cancel()
    with pytest.raises(CancelledError):
        await delivering
    await store.connections[0].lost
    if secure:
        await client.close()
        await listening.stopListening()


@pytest_twisted.ensureDeferred
async def test_closing_an_unread_body_drops_the_connection(store, client):
    writers = []
    store.scripts = [endless(writers)]
    (await client.get_object("a")).close()
    await store.connections[0].lost


@pytest_twisted.ensureDeferred
async def test_closed_client_finishes_requests_under_way(store, client):
    arrived = Deferred()
    waiting = Script(arrived.callback)
    store.scripts = [answer(body=b"one"), waiting]
    assert await whole(client) == b"one"
    reading = client.read_object("a", 10)
    connection = await arrived
    await client.close()
    answer(body=b"two").act(connection)
    assert (await reading)[1] == b"two"
    await connection.lost
    with pytest.raises(Unreachable):
        await whole(client)


@pytest_twisted.ensureDeferred
async def test_connections_are_not_logged(store, client):
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        store.scripts = [answer(body=b"one", then="loseConnection"), answer(body=b"two")]
        await whole(client)
        await store.connections[0].lost
        await whole(client)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event for event in events if "factory" in str(event.get("log_format"))] == []


@pytest.fixture(scope="module")
def certificate():
    return self_signed()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest_twisted.ensureDeferred
async def test_tls_with_and_without_verification(store, certificate, host):
    port = reactor.listenSSL(0, store, certificate.options(), interface="127.0.0.1")
    try:
        client = await connected(store, port, "https")
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await whole(client)
        await client.close()

        client = await connected(store, port, "https", verify=False)
        client.sender.address = endpoint_address("images", f"https://{host}:{port.getHost().port}")
        store.scripts = [answer(body=b"one"), answer(headers="ETag: x\r\n")]
        assert await whole(client) == b"one"
        assert await client.put_object("a", CONTENT) == "x"
        assert store.requests[-1][2] == CONTENT
        await client.close()
    finally:
        await port.stopListening()
    for connection in store.connections:
        await connection.lost


@pytest_twisted.ensureDeferred
async def test_tls_verifies_the_host_name(store, tmp_path, monkeypatch):
    certificate = self_signed("localhost")
    (tmp_path / "ca.pem").write_bytes(certificate.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    port = reactor.listenSSL(0, store, certificate.options(), interface="127.0.0.1")
    client = await connected(store, port, "https")
    client.sender.address = endpoint_address("images", f"https://localhost:{port.getHost().port}")
    store.scripts = [answer(body=b"one")]
    assert await whole(client) == b"one"
    client.sender.address = endpoint_address("images", f"https://127.0.0.1:{port.getHost().port}")
    with pytest.raises(Unreachable, match="TLS: the certificate is for another host"):
        await whole(client)
    await client.close()
    await port.stopListening()
    for connection in store.connections:
        await connection.lost


@pytest_twisted.ensureDeferred
async def test_endpoint_is_kept_and_has_a_large_buffer(store, port):
    endpoints = StoreEndpointFactory(reactor, BrowserLikePolicyForHTTPS(), 5.0)
    uri = URI.fromBytes(b"http://127.0.0.1:%d/a" % port.getHost().port)
    endpoint = endpoints.endpointForURI(uri)
    assert endpoints.endpointForURI(uri) is endpoint
    assert endpoints.endpointForURI(URI.fromBytes(b"http://127.0.0.1:1/")) is not endpoint
    protocol = await endpoint.connect(Factory.forProtocol(Protocol))
    assert protocol.transport.bufferSize == READ_BUFFER_BYTES
    protocol.transport.abortConnection()
