"""The driver of the ``s3`` section, and the check of the bucket at the start."""

from __future__ import annotations

import io
import json
import sys
from hashlib import sha256
from urllib.request import urlopen
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from tests.storage.s3.scripted_server import Script, Store, answer
from tests.support.processes import ROOT, SERVE, TWISTD, RegistryProcess, run, wait_until
from tests.support.s3_servers import client
from twisted_registry.app.s3 import make_s3_driver
from twisted_registry.app.service import RegistryService
from twisted_registry.config.loading import load_text
from twisted_registry.frame.errors import StartError
from twisted_registry.storage.s3.errors import NoSuchBucket
from twisted_registry.storage.s3.files import CopyOptions

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
def test_address_of_the_bucket(text, url):
    assert presigned(made(f"{text}, {KEYS}")) == url


def test_options_reach_the_driver():
    driver = made(
        f"region: us-east-1, {KEYS}, chunksize: 6MiB, multipartcopychunksize: 7MiB,"
        " multipartcopythresholdsize: 8MiB, multipartcopymaxconcurrency: 9, encrypt: true,"
        " keyid: k, storageclass: NONE, objectacl: public-read, payloadsigning: false"
    )
    assert not driver.client.sender.sign_payloads
    assert driver.chunk_size == 6 * 2**20
    assert driver.copy_options == CopyOptions(8 * 2**20, 7 * 2**20, 9)
    assert driver.client.object_options.headers() == {
        "content-type": "application/octet-stream",
        "x-amz-acl": "public-read",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "k",
    }


def test_credentials_of_the_environment():
    environ = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    assert presigned(made("region: us-east-1", environ))


@pytest_twisted.async_yield_fixture
async def server():
    """A server on loopback that tests script."""
    server = Store()
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    server.netloc = f"127.0.0.1:{port.getHost().port}"
    yield server
    await port.stopListening()
    for connection in server.connections:
        await connection.lost


@pytest_twisted.ensureDeferred
async def test_user_agent_and_loglevel_reach_the_requests(server):
    server.scripts = [answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")]
    driver = made(
        f"regionendpoint: 'http://{server.netloc}', useragent: mine, loglevel: debug, {KEYS}"
    )
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        with pytest.raises(NoSuchBucket):
            await driver.client.head_bucket()
    finally:
        globalLogPublisher.removeObserver(events.append)
        await driver.close()
    (agent,) = [fields[b"user-agent"] for _, fields, _ in server.requests]
    assert agent.startswith(b"twisted-registry/")
    assert agent.endswith(b" mine")
    assert any("s3 response" in str(event.get("log_format")) for event in events)


@pytest_twisted.ensureDeferred
async def test_requests_use_the_proxy_of_the_environment(server):
    arrived = Deferred()
    server.scripts = [Script(arrived.callback)]
    environ = {"HTTPS_PROXY": f"http://{server.netloc}"}
    driver = made(f"region: eu-central-1, {KEYS}", environ)
    checking = driver.client.head_bucket()
    await arrived
    checking.cancel()
    with pytest.raises(CancelledError):
        await checking
    await driver.close()
    assert server.requests[0][0] == "CONNECT images.s3.eu-central-1.amazonaws.com:443 HTTP/1.1"


def test_invalid_proxy_ends_the_start_unless_it_is_not_used():
    environ = {"HTTPS_PROXY": "socks5://p:1"}
    with pytest.raises(StartError, match=r"^storage\.s3: HTTPS_PROXY is not a supported proxy"):
        made(f"region: eu-central-1, {KEYS}", environ)
    assert made(f"regionendpoint: 'https://127.0.0.1:1', {KEYS}", environ)


def test_invalid_address_ends_the_start():
    with pytest.raises(
        StartError, match=r"storage\.s3: accelerate cannot be combined with forcepath"
    ):
        made(f"region: us-east-1, accelerate: true, forcepathstyle: true, {KEYS}")


def test_missing_botocore_ends_the_start(tmp_path, monkeypatch):
    name = "twisted_registry.storage.s3.botocore_credentials"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StartError, match=r"storage\.s3\.accesskey: no credentials: .* 'botocore>="):
        made("region: us-east-1", {"HOME": str(tmp_path)})


def test_invalid_profile_ends_the_start(tmp_path):
    (tmp_path / "credentials").write_text("[other]\n")
    environ = {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "missing",
    }  # fmt: skip
    with pytest.raises(StartError, match=r"storage\.s3\.accesskey: "):
        made("region: us-east-1", environ)


@pytest.mark.parametrize("has_callback", [False, True])
@pytest_twisted.ensureDeferred
async def test_service_passes_a_misconfiguration_on_or_logs_it(server, log_lines, has_callback):
    server.scripts = [answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")]
    loaded = load_text(options(f"regionendpoint: 'http://{server.netloc}', {KEYS}", "s3aws"), {})
    service = RegistryService(loaded, reactor, {}, io.StringIO())
    heard = []
    if has_callback:
        service.on_start_error = heard.append
    check = service.getServiceNamed("store")
    check.startService()
    await check.checked
    await service.driver.close()
    told = [*map(str, heard), *(line for line in log_lines if "s3aws" in line)]
    where = "" if has_callback else "configuration: "
    assert [line.partition(": the")[0] for line in told] == [f"{where}storage.s3aws.bucket"]
    assert len(heard) == has_callback


@pytest.mark.parametrize(
    ("storage", "seconds"),
    [
        ("inmemory: {}", 2.0),
        ("s3: {bucket: b, region: eu-west-1, accesskey: a, secretkey: b}", 10.0),
    ],
)
def test_bucket_is_polled_less_often_for_deletions(storage, seconds):
    text = f"version: 0.1\nstorage: {{{storage}}}\n"
    service = RegistryService(load_text(text, {}), Clock(), {}, io.StringIO())
    assert service.getServiceNamed("gate-heartbeat").interval_s == seconds


CONFIGURATION = """
version: 0.1
storage:
  s3: {{bucket: {bucket}, regionendpoint: '{endpoint}', accesskey: '{access}', secretkey: {secret},
       {more}}}
http:
  addr: 127.0.0.1:0
  workers: {workers}
"""


def configured(tmp_path, store, **changed):
    known = {
        "bucket": "registry",
        "endpoint": store.endpoint,
        "access": store.access_key,
        "secret": store.secret_key,
        "workers": 1,
        "more": "",
    }
    path = tmp_path / "registry.yml"
    path.write_text(CONFIGURATION.format(**{**known, **changed}))
    return str(path)


def test_start_logs_the_bucket(tmp_path, object_stores):
    path = configured(tmp_path, object_stores.get("moto"))
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as running:
        assert any("objects in the bucket registry of http://127" in one for one in running.lines)
        status, _, lines = running.stop()
    assert status == 0
    assert [line for line in lines if "error" in line or "Traceback" in line] == []


@pytest.mark.parametrize(
    ("command", "workers"), [(SERVE, 1), (SERVE, 2), ((*TWISTD, "registry", "-c"), 1)]
)
def test_missing_bucket_ends_the_start_with_the_last_line(
    tmp_path, object_stores, command, workers
):
    path = configured(tmp_path, object_stores.get("moto"), bucket="nowhere", workers=workers)
    status, _, lines = run(*command, path, cwd=tmp_path)
    assert status == 1
    (told,) = [line for line in lines if "storage.s3.bucket: the bucket does not exist" in line]
    assert "NoSuchBucket" in told
    assert "level=fatal" in told
    assert lines[-1] == told


def test_log_of_twistd_ends_with_the_cause_and_its_own_lines(tmp_path, object_stores):
    path = configured(tmp_path, object_stores.get("moto"), bucket="nowhere")
    log = tmp_path / "twistd.log"
    status, _, _ = run(*TWISTD, f"--logfile={log}", "registry", "-c", path, cwd=tmp_path)
    assert status == 1
    told, terminated, shut_down = log.read_text().splitlines()[-3:]
    assert "storage.s3.bucket: the bucket does not exist" in told
    assert terminated.endswith("Main loop terminated.")
    assert shut_down.endswith("Server Shut Down.")


CHECK = (*SERVE[:-1], "check")


def test_check_finds_what_serve_refuses_without_the_network(tmp_path):
    text = options("regionendpoint: 'http://10.1.1.1:9', forcepathstyle: false, " + KEYS)
    (tmp_path / "registry.yml").write_text(text)
    checked, served = (run(*words, "registry.yml", cwd=tmp_path) for words in (CHECK, SERVE))
    assert (checked[0], checked[1], served[0]) == (1, "", 1)
    assert checked[2][-1] == served[2][-1]
    where = f"twisted-registry: {tmp_path}/registry.yml: storage.s3: "
    assert checked[2][-1].startswith(f"{where}10.1.1.1 is an IP address")


def test_check_finds_missing_credentials_and_wrong_proxies(tmp_path):
    (tmp_path / "registry.yml").write_text(options("region: eu-central-1"))
    environ = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": ""}
    status, out, lines = run(*CHECK, "registry.yml", cwd=tmp_path, **environ)
    assert (status, out) == (1, "")
    assert "storage.s3.accesskey: AWS_SECRET_ACCESS_KEY is not set" in lines[-1]
    environ |= {"AWS_SECRET_ACCESS_KEY": "hunter2", "HTTPS_PROXY": "socks5://p"}
    status, _, lines = run(*CHECK, "registry.yml", cwd=tmp_path, **environ)
    assert status == 1
    assert "storage.s3: HTTPS_PROXY is not a supported proxy" in lines[-1]


def test_check_finds_an_unusable_key_of_cloudfront(tmp_path):
    text = options(f"region: eu-central-1, {KEYS}") + (
        "middleware: {storage: [{name: cloudfront, options: {baseurl: 'https://c',"
        " privatekey: missing.pem, keypairid: K}}]}\n"
    )
    (tmp_path / "registry.yml").write_text(text)
    status, _, lines = run(*CHECK, "registry.yml", cwd=tmp_path)
    assert status == 1
    assert f"storage[0].options.privatekey: {tmp_path}/missing.pem does not exist" in lines[-1]
    (tmp_path / "missing.pem").write_text("no key\n")
    (tmp_path / "missing.pem").chmod(0o600)
    status, _, lines = run(*CHECK, "registry.yml", cwd=tmp_path)
    assert status == 1
    assert f"middleware.storage[0].options.privatekey: {tmp_path}/missing.pem: " in lines[-1]


def test_check_sends_requests_if_it_shall(tmp_path, object_stores):
    store = object_stores.get("moto")
    path = configured(tmp_path, store, bucket="nowhere")
    assert run(*CHECK, path, cwd=tmp_path)[0] == 0
    status, out, lines = run(*CHECK, "--bucket", path, cwd=tmp_path)
    assert (status, out) == (1, "")
    assert "storage.s3.bucket: the bucket does not exist" in lines[-1]
    path = configured(tmp_path, store)
    status, out, lines = run(*CHECK, "--bucket", path, cwd=tmp_path)
    assert status == 0
    assert "bucket: registry" in out
    assert [line for line in lines if "configuration: " not in line] == []
    path = configured(tmp_path, store, endpoint="http://127.0.0.1:1")
    status, out, lines = run(*CHECK, "--bucket", path, cwd=tmp_path)
    assert (status, out) == (1, "")
    assert "storage.s3: ListObjectsV2 registry" in lines[-1]


def test_bucket_before_an_ip_address_ends_the_start(tmp_path, object_stores):
    path = configured(tmp_path, object_stores.get("moto"), bucket="UPPER")
    text = (tmp_path / "registry.yml").read_text()
    text = text.replace("regionendpoint", "forcepathstyle: false, regionendpoint")
    (tmp_path / "registry.yml").write_text(text)
    for command in (SERVE, (*TWISTD, "registry", "-c")):
        status, _, lines = run(*command, path, cwd=tmp_path)
        assert status == 1
        expected = f"twisted-registry: {path}: storage.s3: 127.0.0.1 is an IP address"
        assert lines[-1].startswith(expected)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bucket": "nowhere"}, "storage.s3.bucket: the bucket does not exist"),
        ({"secret": "wrong"}, "storage.s3.accesskey: the store refuses the credentials"),
        ({"access": "wrong"}, "storage.s3.accesskey: the store refuses the credentials"),
        ({"more": "encrypt: true"}, "storage.s3.encrypt: the store refuses server-side encryption"),
        ({"more": "storageclass: GLACIER_IR"},
         "storage.s3.storageclass: the store refuses the class GLACIER_IR"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["swift", "ceph"])
def test_misconfigurations_on_real_stores(tmp_path, object_stores, kind, changed, told):
    path = configured(tmp_path, object_stores.get(kind), **changed)
    for command in (SERVE, (*CHECK, "--bucket")):
        status, _, lines = run(*command, path, cwd=tmp_path)
        assert status == 1
        assert told in lines[-1], lines


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["swift", "ceph"])
def test_check_leaves_nothing_in_real_stores(tmp_path, object_stores, kind):
    store = object_stores.get(kind)
    root = uuid4().hex
    path = configured(tmp_path, store, more=f"rootdirectory: {root}")
    status, _, lines = run(*CHECK, "--bucket", path, cwd=tmp_path)
    assert status == 0, lines
    found = client(store).list_objects_v2(Bucket="registry", Prefix=root)
    assert "Contents" not in found


@pytest.mark.integration
def test_credentials_without_write_permission_start_with_a_warning(tmp_path, object_stores):
    """On Ceph, with a bucket policy; pulls work, and pushes are refused cleanly."""
    store, root, content = object_stores.get("ceph"), uuid4().hex, uuid4().bytes
    path = configured(tmp_path, store, more=f"rootdirectory: {root}")
    digest = f"sha256:{sha256(content).hexdigest()}"
    push = ("POST", f"/v2/a/blobs/uploads/?digest={digest}", content)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as running:
        assert running.ask(*push)[0].status == 201
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::registry/{root}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3 = client(store)
    s3.put_bucket_policy(Bucket="registry", Policy=policy)
    try:
        with RegistryProcess(*SERVE, path, cwd=tmp_path) as running:
            wait_until(lambda: [line for line in running.lines if "permit pulls only" in line])
            assert running.ask("GET", f"/v2/a/blobs/{digest}")[0].status == 307
            assert running.ask(push[0], push[1].replace("/a/", "/b/"), content)[0].status == 503
        checked = run(*CHECK, "--bucket", path, cwd=tmp_path)
        assert checked[0] == 0
        assert [line for line in checked[2] if "permit pulls only" in line]
        readonly = {"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"}
        status, _, lines = run(*CHECK, "--bucket", path, cwd=tmp_path, **readonly)
        assert status == 0
        assert [line for line in lines if "permit" in line] == []
    finally:
        s3.delete_bucket_policy(Bucket="registry")


@pytest.mark.integration
def test_example_configuration_works(tmp_path, object_stores):
    """With Ceph, as in the example except for the ports."""
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
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as running:
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
