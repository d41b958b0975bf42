"""The descriptor cache in Redis, and the configuration of descriptor caches."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from twisted_registry.app.redis import RedisDescriptorCache, make_redis_endpoint
from twisted_registry.app.stores import make_descriptor_cache
from twisted_registry.config.loading import load
from twisted_registry.frame.errors import StartError
from twisted_registry.oci.digest import Digest
from twisted_registry.repository.cache import IDescriptorCache, MemoryDescriptorCache

ONE, TWO = (Digest.of(bytes([number])) for number in range(2))


@define(eq=False)
class Client:
    """A Redis client that stores values, fails, or gets no reply."""

    values: dict[str, object] = field(factory=dict)
    error: Exception | None = None
    silent: bool = False
    connected: bool = True

    def answer(self, value):
        if self.silent:
            return Deferred(lambda _: None)
        return succeed(value) if self.error is None else fail(self.error)

    def get(self, key):
        return self.answer(self.values.get(key))

    def set(self, key, value):
        self.values[key] = value
        return self.answer("OK")

    def disconnect(self):
        return self.answer(None)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def redis(client, clock):
    return RedisDescriptorCache(client, lambda: client.connected, clock, "redis:6379", 1.0)


def size(cache, digest):
    found = []
    cache.size(digest).addCallback(found.append)
    assert found, "it has not fired"
    return found[0]


def test_stored_size_is_returned(redis):
    assert verifyObject(IDescriptorCache, redis)
    assert size(redis, ONE) is None
    redis.remember_size(ONE, 5)
    assert size(redis, ONE) == 5
    closed = []
    redis.close().addCallback(closed.append)
    assert closed == [None]


@pytest.mark.parametrize("value", ["", "many", "-1", b"\xff", ["5"]])
def test_invalid_sizes_in_redis_are_misses(redis, client, value):
    client.values[f"twisted-registry:size:{ONE}"] = value
    assert size(redis, ONE) is None


def test_redis_replies_may_be_numbers(redis, client):
    client.values[f"twisted-registry:size:{ONE}"] = 5
    assert size(redis, ONE) == 5


def warnings(events):
    return [each["log_format"] for each in events if each["log_level"] is LogLevel.warn]


@pytest.mark.parametrize("kind", ["away", "error", "silent"])
def test_outage_of_redis_is_a_miss_and_logged_once(redis, client, clock, kind):
    redis.remember_size(ONE, 5)
    if kind == "away":
        client.connected = False
    elif kind == "error":
        client.error = ConnectionError("gone")
    else:
        client.silent = True
    with capturedLogs() as events:
        for _ in range(3):
            found = []
            redis.size(ONE).addCallback(found.append)
            redis.remember_size(TWO, 6)
            clock.advance(1.1)
            assert found == [None]
    assert len(warnings(events)) == 1
    client.connected, client.error, client.silent = True, None, False
    with capturedLogs() as events:
        assert size(redis, ONE) == 5
        assert size(redis, ONE) == 5
    assert len(events) == 1
    closed = []
    client.silent = True
    redis.close().addCallback(closed.append)
    clock.advance(3)
    assert closed == [None]


def test_cancelled_lookup_is_not_logged_as_an_outage(redis, client):
    client.silent = True
    with capturedLogs() as events:
        reply = redis.size(ONE)
        reply.addErrback(lambda _: None)
        reply.cancel()
    assert warnings(events) == []


def configured(tmp_path, cache, redis=""):
    path = tmp_path / "registry.yml"
    path.write_text(f"version: 0.1\nstorage: {{inmemory: , cache: {cache}}}\n{redis}")
    return load(str(path), {})


def test_size_of_the_memory_cache_is_configurable(tmp_path):
    loaded = configured(tmp_path, "{layerinfo: inmemory, blobdescriptorsize: 3}")
    cache = make_descriptor_cache(loaded.configuration, Clock())
    assert isinstance(cache, MemoryDescriptorCache)
    digests = [Digest.of(bytes([number])) for number in range(4)]
    for digest in digests:
        cache.remember_size(digest, 1)
    assert [cache.size(digest).result for digest in digests] == [None, 1, 1, 1]


@pytest.mark.parametrize(
    ("redis", "where"),
    [
        ("{addr: 'localhost:1'}", "localhost:1"),
        ("{addrs: ['[::1]:1']}", "[::1]:1"),
        ("{addr: localhost, password: hidden, db: 2}", "localhost"),
        ("{addr: /run/redis.sock}", "/run/redis.sock"),
    ],
)
def test_redis_section_of_both_versions_is_accepted(tmp_path, redis, where, monkeypatch):
    started = []

    class Factory:
        handler = Client()
        size = 0

        def __init__(self, *arguments, **options):
            started.append((arguments, options))

        def startConnecting(self, endpoint):
            started.append(endpoint)

    library = SimpleNamespace(RedisFactory=Factory)
    monkeypatch.setattr("twisted_registry.app.redis.import_module", lambda _: library)
    loaded = configured(tmp_path, "{blobdescriptor: redis}", f"redis: {redis}\n")
    cache = make_descriptor_cache(loaded.configuration, MemoryReactorClock())
    assert (cache.where, cache.connected()) == (where, False)
    assert "hidden" not in repr(cache)
    assert len(started) == 2
    assert not loaded.warnings


def test_missing_redis_extra_is_a_start_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "txredisapi", None)
    loaded = configured(tmp_path, "{blobdescriptor: redis}", "redis: {addr: 'localhost:1'}\n")
    with pytest.raises(StartError, match=r"txredisapi; to install it: .* 'txredisapi>="):
        make_descriptor_cache(loaded.configuration, Clock())


def test_unreadable_redis_certificates_are_a_start_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    redis = "redis: {addr: 'localhost:1', tls: {rootcas: [none.pem]}}\n"
    loaded = configured(tmp_path, "{blobdescriptor: redis}", redis)
    expected = rf"^redis\.tls\.rootcas\[0\]: {tmp_path}/none\.pem: No such file or directory$"
    with pytest.raises(StartError, match=expected):
        make_descriptor_cache(loaded.configuration, MemoryReactorClock())


def test_redis_certificates_without_a_certificate_are_a_start_error(tmp_path):
    """Without the error, the authorities of the system would be trusted instead."""
    (tmp_path / "empty.pem").write_text("no certificate\n")
    redis = f"redis: {{addr: 'localhost:1', tls: {{rootcas: [{tmp_path}/empty.pem]}}}}\n"
    loaded = configured(tmp_path, "{blobdescriptor: redis}", redis)
    with pytest.raises(
        StartError, match=rf"^redis\.tls\.rootcas\[0\]: {tmp_path}/empty\.pem: expected"
    ):
        make_descriptor_cache(loaded.configuration, MemoryReactorClock())


@pytest.mark.parametrize("has_tls", [False, True])
def test_tls_as_harbor_configures_it(tmp_path, has_tls):
    redis = f"redis: {{addr: 'localhost:1', enableTLS: {str(has_tls).lower()}}}\n"
    loaded = configured(tmp_path, "{blobdescriptor: redis}", redis)
    endpoint = make_redis_endpoint(loaded.configuration.redis, MemoryReactorClock())
    assert isinstance(endpoint, HostnameEndpoint) is not has_tls


def test_a_certificate_for_redis_without_its_key_is_a_start_error(tmp_path):
    (tmp_path / "own.pem").write_text("no certificate\n")
    redis = f"redis: {{addr: 'localhost:1', tls: {{certificate: {tmp_path}/own.pem, key: ''}}}}\n"
    loaded = configured(tmp_path, "{blobdescriptor: redis}", redis)
    with pytest.raises(StartError, match=rf"^redis\.tls: {tmp_path}/own\.pem, .*: expected a cert"):
        make_descriptor_cache(loaded.configuration, MemoryReactorClock())
