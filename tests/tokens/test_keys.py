"""The keys that sign tokens: creation, rotation, and how processes take over new ones."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from tests.storage.s3.fake_bucket import FakeBucket
from twisted_registry.auth.access import LEEWAY_S
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.tokens.keys import (
    KEYS_TTL_S,
    KeyCache,
    StoredKeys,
    TokenKey,
    TokenKeys,
    read_key_file,
)

LIFETIME = 300.0
BEGIN = 1_000_000.0
HEX = "0123456789abcdef" * 4


def clock_at(now):
    clock = Clock()
    clock.advance(now)
    return clock


def drivers_of(kind, folder):
    """The drivers of two machines, or of two processes, on one store."""
    if kind == "filesystem":
        return [FilesystemDriver(str(folder), reactor) for _ in range(2)]
    if kind == "memory":
        return [MemoryDriver(reactor)] * 2
    bucket = FakeBucket(conditional="" if kind == "careless bucket" else "obeyed")
    return [S3Driver(bucket, reactor, "root") for _ in range(2)]


@pytest_twisted.async_yield_fixture(params=["filesystem", "memory", "bucket"])
async def machines(request, tmp_path):
    """Key stores of two machines that share a store."""
    drivers = drivers_of(request.param, tmp_path)
    yield [StoredKeys(driver, clock_at(BEGIN)) for driver in drivers]
    for driver in set(drivers):
        await driver.close()


@pytest_twisted.ensureDeferred
async def test_concurrent_creation_gives_one_key(machines):
    readers = [Deferred.fromCoroutine(machine.read()) for machine in machines * 10]
    found = await gatherResults(readers)
    assert {keys.keys for keys in found} == {(await machines[0].read()).keys}
    (key,) = found[0].keys
    assert len(key.secret) == 32
    assert key.retired is None


@pytest_twisted.ensureDeferred
async def test_machines_on_a_store_without_conditional_writes_agree(tmp_path):
    drivers = drivers_of("careless bucket", tmp_path)
    one, two = (StoredKeys(driver, reactor) for driver in drivers)
    await gatherResults([Deferred.fromCoroutine(each.read()) for each in (one, two)])
    assert await one.read() == await two.read()
    for driver in drivers:
        await driver.close()


@pytest_twisted.ensureDeferred
async def test_different_stores_have_different_keys(machines):
    other = StoredKeys(MemoryDriver(Clock()), Clock())
    assert (await machines[0].read()).signing.secret != (await other.read()).signing.secret


@pytest_twisted.ensureDeferred
async def test_rotation_keeps_keys_while_their_tokens_are_valid(machines):
    one, two = machines
    first = (await one.read()).signing
    rotated = await two.rotate(LIFETIME)
    assert await one.read() == rotated
    second = rotated.signing
    assert second.secret != first.secret
    assert rotated.find(first.id).retired == BEGIN
    two.clock.advance(LIFETIME)
    third = (await two.rotate(LIFETIME)).signing
    # A key does not become younger, and is dropped once no token of it can be valid.
    two.clock.advance(KEYS_TTL_S + LEEWAY_S - 1)
    keys = await two.rotate(LIFETIME)
    assert [key.id for key in keys.keys[1:]] == [third.id, second.id, first.id]
    two.clock.advance(1)
    keys = await two.rotate(LIFETIME)
    assert first.id not in [key.id for key in keys.keys]
    assert len((await two.rotate(LIFETIME, revoke=True)).keys) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff", b'{"keys": []}', b'{"keys": [1]}', b'{"keys": 1}',
        b'{"keys": [{"key": "", "retired": null}]}',
        b'{"keys": [{"key": "%s"}]}' % HEX.encode(),
        b'{"keys": [{"key": "%s", "retired": "x"}]}' % HEX.encode(),
        b"[" * 60_000,
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_damaged_keys_are_replaced(machines, content, log_lines):
    one, two = machines
    await one.driver.put(layout.TOKEN_KEYS, content)
    assert len((await one.read()).signing.secret) == 32
    assert await one.read() == await two.read()
    assert [line for line in log_lines if line.startswith("token keys are damaged and replaced")]


def test_a_key_is_not_shown():
    key = TokenKey.parse(HEX)
    assert HEX not in repr(key) + repr(TokenKeys((key,)))
    assert repr(key.secret) not in repr(TokenKeys((key,)))
    assert key.id not in HEX
    with pytest.raises(ValueError) as caught:
        TokenKey.parse(HEX[:-1])
    assert HEX[:-1] not in str(caught.value)


def test_key_file_has_a_key_on_each_line(tmp_path):
    path, other = tmp_path / "keys", "f" * 64
    path.write_text(f"# since May\n{HEX}\n\n  {other.upper()}  \n")
    assert [key.secret.hex() for key in read_key_file(str(path)).keys] == [HEX, other]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no key"),
        ("# nothing\n", "no key"),
        (f"{HEX}\n{HEX[:-2]}\n", "line 2: expected 64 hexadecimal digits"),
        ("a passphrase\n", "line 1: expected 64 hexadecimal digits"),
        (f"{HEX[:-1]}é\n", "line 1: expected 64 hexadecimal digits"),
    ],
)
def test_malformed_key_file_is_refused(tmp_path, content, reason):
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_key_file(str(path))
    assert str(caught.value) == reason


@define(eq=False)
class Source:
    """Keys that a test changes, with the number of reads."""

    keys: TokenKeys = field(factory=lambda: TokenKeys((TokenKey.generate(),)))
    reads: int = 0
    error: Exception | None = None
    waiting: Deferred[None] | None = None

    async def read(self):
        self.reads += 1
        if self.waiting is not None:
            await self.waiting
        if self.error is not None:
            raise self.error
        # A new object each time, as from a store.
        return TokenKeys.from_bytes(self.keys.to_bytes())


@pytest.fixture
def clock():
    return clock_at(BEGIN)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def cache(source, clock):
    return KeyCache(source.read, clock)


@pytest_twisted.ensureDeferred
async def test_keys_are_read_again_after_seconds(source, cache, clock):
    assert cache.fresh() is None
    first = await cache.current()
    clock.advance(KEYS_TTL_S - 0.1)
    assert cache.fresh() is await cache.current() is first
    assert source.reads == 1
    clock.advance(0.2)
    assert cache.fresh() is None
    assert await cache.current() is first, "unchanged keys are the same object"
    assert source.reads == 2
    source.keys = source.keys.rotate(clock.seconds(), LIFETIME, revoke=False)
    clock.advance(KEYS_TTL_S)
    assert await cache.current() == source.keys
    assert cache.fresh() is not first
    assert KEYS_TTL_S <= 5


@pytest_twisted.ensureDeferred
async def test_keys_are_read_again_after_the_clock_was_set_back(source, cache, clock):
    await cache.current()
    clock.rightNow -= 10 * 24 * 3600
    await cache.current()
    assert source.reads == 2


@pytest_twisted.ensureDeferred
async def test_new_key_is_found_before_the_keys_are_old(source, cache, clock):
    await cache.current()
    source.keys = source.keys.rotate(clock.seconds(), LIFETIME, revoke=False)
    clock.advance(1)
    assert await cache.find(source.keys.signing.id) == source.keys.signing


@pytest_twisted.ensureDeferred
async def test_unknown_keys_cause_one_read_a_second(source, cache, clock):
    for number in range(1000):
        assert await cache.find(f"{number:016x}") is None
    for other in (None, 1, [], {}):
        assert await cache.find(other) is None
    assert source.reads == 1
    clock.advance(1)
    for number in range(1000):
        assert await cache.find(f"{number:016x}") is None
    assert source.reads == 2


@pytest_twisted.ensureDeferred
async def test_requests_share_a_read(source, cache):
    source.waiting = Deferred()
    waiting = [Deferred.fromCoroutine(cache.current()) for _ in range(10)]
    assert source.reads == 1
    waiting[0].addErrback(lambda _: None)
    waiting[0].cancel()
    source.waiting.callback(None)
    found = await gatherResults(waiting[1:])
    assert set(found) == {source.keys}


@pytest.mark.parametrize("error", [StorageError("x"), OSError(5, "x"), ValueError("x")])
@pytest_twisted.ensureDeferred
async def test_keys_are_used_while_they_cannot_be_read(source, cache, clock, error, log_lines):
    source.error = error
    with pytest.raises(RegistryError) as caught:
        await cache.current()
    assert caught.value.code is ErrorCode.UNAVAILABLE
    source.error = None
    clock.advance(KEYS_TTL_S)
    keys = await cache.current()
    source.error = error
    clock.advance(KEYS_TTL_S)
    assert await cache.current() is keys
    assert cache.fresh() is keys
    assert len([line for line in log_lines if line.startswith("token keys cannot be read")]) == 2
