"""The descriptor cache in a real Redis: restarted, and over TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.servers import program, wait_until
from tests.support.processes import free_port, run
from tests.support.self_signed import self_signed
from twisted_registry.app.stores import make_descriptor_cache
from twisted_registry.config.loading import load
from twisted_registry.oci.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

DIGEST = Digest.of(b"remembered")


class Redis:
    """An empty Redis server on a free port."""

    def __init__(self, folder: Path, *options: str, kind: str = "--port"):
        self.folder = folder
        self.kind = kind
        self.options = options
        self.port = free_port()
        self.process = None

    def start(self):
        log = self.folder / "redis.log"
        command = [
            program("redis-server"), self.kind, str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(self.folder), *self.options,
        ]  # fmt: skip
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        wait_until(lambda: b"eady to accept" in log.read_bytes(), self.process, log)

    def stop(self):
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path):
    started = Redis(tmp_path, "--requirepass", "secret")
    started.start()
    yield started
    started.stop()


def cache_of(folder, section):
    path = folder / "registry.yml"
    path.write_text(
        f"version: 0.1\nstorage: {{inmemory: , cache: {{blobdescriptor: redis}}}}\n{section}"
    )
    return make_descriptor_cache(load(str(path), {}).configuration, reactor)


async def until(reached):
    """Wait until ``reached()`` is true, for at most 10 seconds."""
    for _ in range(200):
        if reached():
            return
        await deferLater(reactor, 0.05)
    raise AssertionError("the condition did not become true")


# One connection, so that a value is stored before it is read.
@pytest.mark.parametrize(
    "section",
    [
        "redis: {{addr: '127.0.0.1:{port}', password: secret, db: 3, poolsize: 1}}\n",
        (
            "redis: {{poolsize: 1, addrs: ['127.0.0.1:{port}'],"
            " password: secret, username: default}}\n"
        ),
    ],
    ids=["2.8", "3"],
)
@pytest_twisted.ensureDeferred
async def test_the_cache_reconnects_to_a_restarted_redis(tmp_path, redis, section):
    cache = cache_of(tmp_path, section.format(port=redis.port))
    try:
        assert await cache.size(DIGEST) is None
        await until(cache.connected)
        cache.remember_size(DIGEST, 10)
        assert await cache.size(DIGEST) == 10
        redis.stop()
        assert await cache.size(DIGEST) is None
        cache.remember_size(DIGEST, 10)
        redis.start()
        await until(cache.connected)
        assert await cache.size(DIGEST) is None
        cache.remember_size(DIGEST, 11)
        assert await cache.size(DIGEST) == 11
    finally:
        await cache.close()


@pytest.mark.parametrize("trusted", [True, False])
@pytest_twisted.ensureDeferred
async def test_redis_over_tls_needs_a_trusted_certificate(tmp_path, trusted):
    pem = tmp_path / "redis.pem"
    certificate = self_signed("localhost")
    pem.write_bytes(certificate.certificate_pem + certificate.key_pem)
    other = tmp_path / "other.pem"
    other.write_bytes(self_signed("localhost").certificate_pem)
    redis = Redis(
        tmp_path, "--port", "0", "--tls-auth-clients", "no", "--tls-cert-file", str(pem),
        "--tls-key-file", str(pem), "--tls-ca-cert-file", str(pem), kind="--tls-port",
    )  # fmt: skip
    redis.start()
    roots = pem if trusted else other
    cache = cache_of(
        tmp_path,
        f"redis: {{addr: 'localhost:{redis.port}', poolsize: 1, tls: {{rootcas: [{roots}]}}}}\n",
    )
    try:
        if trusted:
            await until(cache.connected)
            cache.remember_size(DIGEST, 12)
            assert await cache.size(DIGEST) == 12
        else:
            await deferLater(reactor, 0.3)
            assert not cache.connected()
            assert await cache.size(DIGEST) is None
    finally:
        await cache.close()
        redis.stop()


@pytest.mark.parametrize(
    ("password", "subjects"), [("secret", []), ("wrong", ["redis.password"]), ("", ["redis"])]
)
def test_doctor_finds_a_password_that_the_server_refuses(tmp_path, redis, password, subjects):
    path = tmp_path / "registry.yml"
    path.write_text(
        "version: 0.1\nstorage: {inmemory: , cache: {blobdescriptor: redis}}\n"
        f"http: {{addr: '127.0.0.1:{free_port()}'}}\n"
        f"redis: {{addr: '127.0.0.1:{redis.port}', password: '{password}'}}\n"
    )
    command = (sys.executable, "-m", "twisted_registry", "doctor", "--json")
    status, out, _ = run(*command, str(path), cwd=tmp_path)
    found = json.loads(out)["findings"]
    assert [each["subject"] for each in found if each["level"] == "problem"] == subjects
    assert status == (1 if subjects else 0)
