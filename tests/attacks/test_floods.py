"""Floods: too many requests, too many uploads at once, blobs that are too large."""

from __future__ import annotations

import os
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.support.http_client import RegistryClient, connect, head, parse, with_query
from tests.support.manifests import digest_of
from tests.support.passwords import basic_header, password_lines
from tests.support.services import HTTP, MEMORY, run_service

USERS = {"ada": "ada-knows-this", "bob": "bob-knows-this"}


def configuration(folder, limits, more=""):
    (folder / "users").write_bytes(password_lines(**USERS))
    return (
        f"{MEMORY}{HTTP}  limits: {{{{{limits}}}}}\n"
        f"auth:\n  htpasswd: {{{{realm: here, path: {folder}/users}}}}\n{more}"
    )


def client_of(ask):
    parts = urlsplit(ask.base)
    return RegistryClient(SimpleNamespace(host=parts.netloc, port=parts.port))


def as_user(name):
    return {"Authorization": basic_header(name, USERS[name])}


def check_too_many(response):
    assert (response.status, response.code) == (429, "TOOMANYREQUESTS")
    assert int(response.get("Retry-After")) > 0
    assert response.json()["errors"][0]["detail"]["limit"] > 0


@pytest_twisted.ensureDeferred
async def test_a_flood_from_one_address_is_refused_before_passwords_are_checked(tmp_path):
    text = configuration(tmp_path, "requestsperaddress: 0.5")
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        answers = [await api("GET", "") for _ in range(20)]
        assert [answer.status for answer in answers] == 5 * [401] + 15 * [429]
        check_too_many(answers[-1])
        # A right password does not help, and neither does a wrong one cost a check.
        for password in (USERS["ada"], "wrong"):
            check_too_many(await api("GET", "", {"Authorization": basic_header("ada", password)}))


@pytest.mark.parametrize(("trusted", "admitted"), [("[]", 5), ("[127.0.0.1]", 20)])
@pytest_twisted.ensureDeferred
async def test_only_a_trusted_proxy_can_tell_other_addresses(tmp_path, trusted, admitted):
    text = configuration(tmp_path, "requestsperaddress: 0.5")
    text = text.replace(HTTP, f"{HTTP}  trustedproxies: {trusted}\n")
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        answers = [
            await api("GET", "", {"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(20)
        ]
        assert [answer.status for answer in answers].count(401) == admitted


@pytest_twisted.ensureDeferred
async def test_the_token_service_has_the_same_limit_of_addresses(tmp_path):
    rules = "access:\n  anonymous: [pull]\n  authenticated: [push]\n"
    text = configuration(tmp_path, "requestsperaddress: 0.5", rules)
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        target = "/auth/token?scope=repository:a/b:pull"
        assert [(await api.request_target("GET", target)).status for _ in range(6)] == [
            *5 * [200],
            429,
        ]
        check_too_many(await api.request_target("GET", target))
        check_too_many(await api("GET", "a/b/tags/list"))


@pytest_twisted.ensureDeferred
async def test_a_flood_of_one_user_does_not_affect_another(tmp_path):
    text = configuration(tmp_path, "requestsperuser: 0.5")
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        answers = [await api("GET", "", as_user("ada")) for _ in range(8)]
        assert [answer.status for answer in answers] == 5 * [200] + 3 * [429]
        check_too_many(answers[-1])
        assert (await api("GET", "", as_user("bob"))).status == 200


async def begin_patch(api, user):
    """Send the first bytes of an upload that does not end, and return the connection."""
    started = await api("POST", "a/blobs/uploads/", as_user(user), b"")
    assert started.status == 202
    connection = await connect(api.served.port)
    target = urlsplit(started.get("Location"))._replace(scheme="", netloc="").geturl()
    headers = {**as_user(user), "Content-Length": "1000000", "Expect": "100-continue"}
    connection.send(head("PATCH", target, headers, host=api.host))
    await connection.until(lambda received: b"\r\n\r\n" in received)
    return connection


@pytest_twisted.ensureDeferred
async def test_concurrent_uploads_of_one_user_are_limited(tmp_path):
    text = configuration(tmp_path, "uploadsperuser: 2")
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        open_uploads = [await begin_patch(api, "ada") for _ in range(2)]
        assert all(b" 100 " in connection.received for connection in open_uploads)
        refused = await begin_patch(api, "ada")
        await refused.closed
        check_too_many(parse(refused.received, "PATCH"))
        query = f"a/blobs/uploads/?digest={digest_of(b'one')}"
        check_too_many(await api("POST", query, as_user("ada"), b"one"))
        assert (await api("POST", query, as_user("bob"), b"one")).status == 201
        # Beginning an upload and pulling are not limited.
        assert (await api("GET", f"a/blobs/{digest_of(b'one')}", as_user("ada"))).status == 200
        open_uploads.pop().abort()
        for _ in range(100):
            again = await api("POST", query, as_user("ada"), b"one")
            if again.status == 201:
                break
            await deferLater(reactor, 0.05)
        assert again.status == 201
        open_uploads.pop().abort()


LIMIT = 100_000


@pytest.fixture
def content():
    return os.urandom(LIMIT + 1)


def check_too_large(response):
    assert (response.status, response.code) == (413, "DENIED")
    assert str(LIMIT) in response.json()["errors"][0]["message"]
    assert response.json()["errors"][0]["detail"] == {"limit": LIMIT, "size": LIMIT + 1}


@pytest_twisted.ensureDeferred
async def test_a_blob_that_is_too_large_is_refused_however_it_is_sent(tmp_path, content):
    text = f"{MEMORY}{HTTP}  limits: {{{{blobbytes: {LIMIT}}}}}\n"
    digest = digest_of(content)
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        check_too_large(await api("POST", f"a/blobs/uploads/?digest={digest}", (), content))
        for method in ("PATCH", "PUT"):
            url = with_query(await api.start_upload(), digest=digest)
            check_too_large(await api.request_target(method, url, (), content))
            assert (await api.request_target("GET", url)).code == "BLOB_UPLOAD_UNKNOWN"
            url = with_query(await api.start_upload(), digest=digest)
            check_too_large(await api.stream(method, url, content))
            assert (await api.request_target("GET", url)).code == "BLOB_UPLOAD_UNKNOWN"
        # In chunks, each of which is small.
        url = await api.start_upload()
        sent = await api.request_target("PATCH", url, (), content[:LIMIT])
        assert sent.status == 202
        url = with_query(sent.get("Location"), digest=digest)
        check_too_large(await api.request_target("PUT", url, (), content[LIMIT:]))
        assert (await api("HEAD", f"a/blobs/{digest}")).status == 404


@pytest_twisted.ensureDeferred
async def test_the_body_of_a_refused_blob_is_not_asked_for(tmp_path):
    text = f"{MEMORY}{HTTP}  limits: {{{{blobbytes: {LIMIT}}}}}\n"
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        url = urlsplit(await api.start_upload())._replace(scheme="", netloc="").geturl()
        connection = await connect(api.served.port)
        headers = {"Content-Length": str(LIMIT + 1), "Expect": "100-continue"}
        connection.send(head("PATCH", url, headers, host=api.host))
        await connection.closed
        check_too_large(parse(connection.received, "PATCH"))
        assert b" 100 " not in connection.received


@pytest_twisted.ensureDeferred
async def test_blobs_of_the_largest_size_are_accepted(tmp_path, content):
    text = f"{MEMORY}{HTTP}  limits: {{{{blobbytes: {LIMIT}}}}}\n"
    blob = content[:LIMIT]
    digest = digest_of(blob)
    async with run_service(tmp_path, text) as ask:
        api = client_of(ask)
        await api.push_blob(blob)
        for name in ("b", "c"):
            url = await api.start_upload(name)
            if name == "b":
                sent = await api.stream("PATCH", url, blob[:50_000], blob[50_000:])
            else:
                sent = await api.request_target("PATCH", url, (), blob)
            assert sent.status == 202
            url = with_query(sent.get("Location"), digest=digest)
            assert (await api.request_target("PUT", url)).status == 201


@pytest_twisted.ensureDeferred
async def test_without_limits_nothing_is_limited(tmp_path):
    async with run_service(tmp_path, configuration(tmp_path, "requestsperuser: 0")) as ask:
        api = client_of(ask)
        answers = await gatherResults(
            [Deferred.fromCoroutine(api("GET", "", as_user("ada"))) for _ in range(100)]
        )
        assert {answer.status for answer in answers} == {200}
