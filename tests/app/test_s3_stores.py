"""How the ``s3`` section becomes a driver, and what the store says of it at the start."""

from __future__ import annotations

import io
from hashlib import sha256
from types import SimpleNamespace
from urllib.request import urlopen
from uuid import uuid4

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from tests.support.processes import ROOT, SERVE, TWISTD, Running, run
from twisted_registry.app.listener import StartError
from twisted_registry.app.s3 import BucketCheck, find_misconfiguration, make_s3_driver
from twisted_registry.app.service import RegistryService
from twisted_registry.config.loading import load_text
from twisted_registry.storage.s3.connections import Proxy
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    BadCredentials,
    ClockSkewed,
    NoSuchBucket,
    NotFound,
    S3Error,
    Unreachable,
    WrongRegion,
)

KEYS = "accesskey: AKIA, secretkey: hunter2"


def options(text, name="s3"):
    return f"version: 0.1\nstorage: {{{name}: {{bucket: images, {text}}}}}\n"


def made(text, environ=None):
    found = load_text(options(text), {}).configuration.storage.bucket
    return make_s3_driver("s3", found, reactor, environ or {})


def presigned(driver):
    urls = []
    driver.presign("a", "GET", 60).addCallback(urls.append)
    return urls[0].partition("?")[0]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("region: eu-central-1", "https://images.s3.eu-central-1.amazonaws.com/a"),
        ("region: eu-central-1, forcepathstyle: true, secure: false",
         "http://s3.eu-central-1.amazonaws.com/images/a"),
        ("region: eu-central-1, accelerate: true", "https://images.s3-accelerate.amazonaws.com/a"),
        ("region: eu-central-1, usedualstack: true",
         "https://images.s3.dualstack.eu-central-1.amazonaws.com/a"),
        ("region: us-east-1, usefipsendpoint: true",
         "https://images.s3-fips.us-east-1.amazonaws.com/a"),
        ("regionendpoint: myobjects.local, rootdirectory: /deep/er",
         "https://myobjects.local/images/deep/er/a"),
        ("regionendpoint: 'myobjects.local:9000', secure: false",
         "http://myobjects.local:9000/images/a"),
        ("regionendpoint: 'http://h', forcepathstyle: false", "http://images.h/a"),
        ("regionendpoint: 'http://h', redirectendpoint: 'https://public'",
         "https://public/images/a"),
        ("region: us-east-1, redirectendpoint: 'https://public'", "https://images.public/a"),
    ],
)  # fmt: skip
def test_where_the_bucket_is(text, url):
    assert presigned(made(f"{text}, {KEYS}")) == url


def test_the_options_arrive():
    driver = made(
        f"region: us-east-1, {KEYS}, chunksize: 6MiB, multipartcopychunksize: 7MiB,"
        " multipartcopythresholdsize: 8MiB, multipartcopymaxconcurrency: 9, encrypt: true,"
        " keyid: k, storageclass: NONE, objectacl: public-read, useragent: mine, loglevel: debug"
    )
    assert driver.chunk_size == 6 * 2**20
    assert (driver.copy_options.part, driver.copy_options.threshold) == (7 * 2**20, 8 * 2**20)
    assert driver.copy_options.at_once == 9
    assert driver.client.storing.headers() == {
        "content-type": "application/octet-stream",
        "x-amz-acl": "public-read",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "k",
    }
    assert driver.client.sender._user_agent.endswith(" mine")
    assert driver.client.sender._user_agent.startswith("twisted-registry/")
    assert driver.client.sender._request_log.is_on


def test_credentials_may_be_in_the_environment():
    environ = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    assert presigned(made("region: us-east-1", environ))


def test_a_proxy_may_be_in_the_environment():
    environ = {"HTTPS_PROXY": "socks5://p:1"}
    with pytest.raises(StartError, match=r"^storage\.s3: HTTPS_PROXY is no proxy"):
        made(f"region: eu-central-1, {KEYS}", environ)
    assert made(f"regionendpoint: 'https://127.0.0.1:1', {KEYS}", environ)
    environ = {"HTTPS_PROXY": "http://p:1"}
    sender = made(f"region: eu-central-1, {KEYS}", environ).client.sender
    agent = sender._transport._agent
    assert agent._endpointFactory._endpoints._proxy == Proxy("p", 1)


def test_what_makes_no_address_ends_the_start():
    with pytest.raises(StartError, match=r"storage\.s3: accelerate does not go with forcepath"):
        made(f"region: us-east-1, accelerate: true, forcepathstyle: true, {KEYS}")


def test_a_profile_that_is_broken_ends_the_start(tmp_path):
    (tmp_path / "credentials").write_text("[other]\n")
    environ = {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "missing",
    }  # fmt: skip
    with pytest.raises(StartError, match=r"storage\.s3\.accesskey: "):
        made("region: us-east-1", environ)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NoSuchBucket, "storage.s3.bucket: there is no such bucket: "),
        (NotFound, "storage.s3.bucket: there is no such bucket: "),
        (WrongRegion, "storage.s3.region: the bucket is elsewhere: "),
        (ClockSkewed, "storage.s3: the clock of this machine is wrong: "),
        (BadCredentials, "storage.s3.accesskey: the store does not accept the credentials: "),
        (AccessDenied, "storage.s3.bucket: the credentials are good, and do not allow to list"),
    ],
)
def test_each_mistake_has_its_sentence(error, told):
    assert str(find_misconfiguration(error("ListObjectsV2 b", "no"), "s3")).startswith(told)


@pytest.mark.parametrize("error", [Unreachable("List", "down"), S3Error("List", "?"), None])
def test_a_store_that_is_down_is_no_mistake(error):
    assert find_misconfiguration(error, "s3") is None


class Client:
    def __init__(self, answer):
        self.answer = answer

    def head_bucket(self):
        return self.answer


def asked(answer):
    """What the log says, and what the registry gives up for."""
    logged, given_up = [], []
    globalLogPublisher.addObserver(logged.append)
    try:
        check = BucketCheck("s3", S3Driver(Client(answer), reactor), given_up.append)
        check.startService()
        check.stopService()
    finally:
        globalLogPublisher.removeObserver(logged.append)
    return [event["log_level"] for event in logged], given_up


def test_the_check_gives_up_for_mistakes_alone():
    assert asked(succeed(None)) == ([], [])
    assert asked(fail(Unreachable("List", "down"))) == ([LogLevel.error], [])
    levels, given_up = asked(fail(NoSuchBucket("List", "no")))
    assert levels == [LogLevel.critical]
    assert "no such bucket" in str(given_up[0])


def test_a_stop_waits_for_no_answer():
    assert asked(Deferred()) == ([], [])


def test_the_service_gives_up_only_if_somebody_listens():
    loaded = load_text(options(f"region: us-east-1, {KEYS}", "s3aws"), {})
    service = RegistryService(loaded, reactor, {}, io.StringIO())
    assert isinstance(service.driver, S3Driver)
    service._store_misconfigured(StartError("a"))
    heard = []
    service.on_start_error = heard.append
    service.getServiceNamed("store")._on_start_error(StartError("b"))
    assert [str(error) for error in heard] == ["b"]


@pytest.mark.parametrize(
    ("storage", "seconds"),
    [
        ("inmemory: {}", 2.0),
        ("s3: {bucket: b, region: eu-west-1, accesskey: a, secretkey: b}", 10.0),
    ],
)
def test_a_store_that_may_count_requests_is_looked_at_less_often(storage, seconds):
    text = f"version: 0.1\nstorage: {{{storage}}}\n"
    service = RegistryService(load_text(text, {}), Clock(), {}, io.StringIO())
    looking = []
    heartbeat = service.getServiceNamed("attendance")
    heartbeat._gate = SimpleNamespace(
        poll=lambda: looking.append(None) or succeed(None), has_list=False
    )
    heartbeat.startService()
    heartbeat._loop.clock.pump([1.0] * int(seconds - 1))
    assert len(looking) == 1
    heartbeat._loop.clock.advance(1.0)
    assert len(looking) == 2


CONFIGURATION = """
version: 0.1
storage:
  s3: {{bucket: {bucket}, regionendpoint: '{endpoint}', accesskey: '{access}', secretkey: {secret}}}
http:
  addr: 127.0.0.1:0
"""


def configured(tmp_path, store, **changed):
    known = {
        "bucket": "registry",
        "endpoint": store.endpoint,
        "access": store.access_key,
        "secret": store.secret_key,
    }
    path = tmp_path / "registry.yml"
    path.write_text(CONFIGURATION.format(**{**known, **changed}))
    return str(path)


def test_a_registry_over_a_bucket_says_so(tmp_path, object_stores):
    path = configured(tmp_path, object_stores.get("moto"))
    with Running(*SERVE, path, cwd=tmp_path) as running:
        assert any("objects in the bucket registry of http://127" in one for one in running.lines)
        status, _, lines = running.stop()
    assert status == 0
    assert [line for line in lines if "error" in line or "Traceback" in line] == []


def test_a_bucket_that_is_not_there_ends_the_start(tmp_path, object_stores):
    path = configured(tmp_path, object_stores.get("moto"), bucket="nowhere")
    for command in (SERVE, (*TWISTD, "registry", "-c")):
        status, _, lines = run(*command, path, cwd=tmp_path)
        assert status == 1
        (told,) = [line for line in lines if "storage.s3.bucket: there is no such bucket" in line]
        assert "NoSuchBucket" in told


def test_a_section_that_makes_no_driver_ends_the_start(tmp_path, object_stores):
    path = configured(tmp_path, object_stores.get("moto"), bucket="UPPER")
    text = (tmp_path / "registry.yml").read_text()
    text = text.replace("regionendpoint", "forcepathstyle: false, regionendpoint")
    (tmp_path / "registry.yml").write_text(text)
    for command in (SERVE, (*TWISTD, "registry", "-c")):
        status, _, lines = run(*command, path, cwd=tmp_path)
        assert status == 1
        assert lines[-1].startswith("twisted-registry: storage.s3: a bucket can not stand before")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bucket": "nowhere"}, "storage.s3.bucket: there is no such bucket"),
        ({"secret": "wrong"}, "storage.s3.accesskey: the store does not accept the credentials"),
        ({"access": "wrong"}, "storage.s3.accesskey: the store does not accept the credentials"),
    ],
)
@pytest.mark.parametrize("kind", ["swift", "ceph"])
def test_real_stores_tell_what_is_wrong(tmp_path, object_stores, kind, changed, told):
    path = configured(tmp_path, object_stores.get(kind), **changed)
    status, _, lines = run(*SERVE, path, cwd=tmp_path)
    assert status == 1
    assert [line for line in lines if told in line], lines


@pytest.mark.integration
def test_the_example_works_as_it_is_written(tmp_path, object_stores):
    """Ceph as the example has it, but for the ports."""
    text = (ROOT / "conf" / "s3.yml").read_text()
    ports = {
        "http://127.0.0.1:7480": object_stores.get("ceph").endpoint,
        "127.0.0.1:5000": "127.0.0.1:0",
    }
    for written, here in ports.items():
        assert text.count(f": {written}\n") == 1
        text = text.replace(f": {written}\n", f": {here}\n")
    path = tmp_path / "s3.yml"
    path.write_text(text)
    content = uuid4().bytes
    digest = f"sha256:{sha256(content).hexdigest()}"
    with Running(*SERVE, path, cwd=tmp_path) as running:
        pushed, _ = running.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", content)
        assert pushed.status == 201
        pulled, _ = running.ask("GET", f"/v2/a/blobs/{digest}")
        assert pulled.status == 307
        with urlopen(pulled.headers["Location"], timeout=30) as answer:
            assert answer.read() == content
        deleted, _ = running.ask("DELETE", f"/v2/a/blobs/{digest}")
        assert deleted.status == 202
        status, _, lines = running.stop()
    assert status == 0
    assert [line for line in lines if "error" in line or "Traceback" in line] == []
