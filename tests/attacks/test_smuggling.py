"""Request smuggling and very long requests, on connections that other clients share.

``http/test_connection_errors.py`` tests which framing a connection refuses.
"""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import HIDDEN, LAYER, OWN_TOKENS, PASSWORDS, TARGET, USERS
from tests.support.http_client import connect, head
from tests.support.manifests import digest_of
from tests.support.passwords import basic_header

OPEN = "/v2/public/app/tags/list"
UPLOADS = "/v2/secret/app/blobs/uploads/"
FORM = "application/x-www-form-urlencoded"


async def statuses(registry, *data, expected):
    """Send ``data`` on one connection; return ``expected`` statuses and all received bytes."""
    connection = await connect(registry.api.served.port)
    for each in data:
        connection.send(each)
    await connection.until(lambda received: received.count(b"HTTP/1.1 ") >= expected)
    connection.abort()
    await connection.closed
    lines = connection.received.split(b"HTTP/1.1 ")[1:]
    return [int(line[:3]) for line in lines if line[:3] != b"100"], connection.received


def keep_alive_request(method, target, authorization=None, **headers):
    """Return a request that keeps the connection open."""
    sent = {"Connection": None, "Authorization": authorization, **headers}
    return head(method, target, sent)


async def _root_authorization(registry, scope="repository:secret/app:pull"):
    if registry.scheme == PASSWORDS:
        return basic_header("root", USERS["root"])
    return f"Bearer {await registry.token('root', scope)}"


@pytest_twisted.ensureDeferred
async def test_a_login_applies_to_one_request_only(registry):
    root = await _root_authorization(registry)
    good, none = keep_alive_request("GET", TARGET, root), keep_alive_request("GET", TARGET)
    found, received = await statuses(registry, good + none + good + none, expected=4)
    assert found == [200, 401, 200, 401]
    found, _ = await statuses(registry, none, good, none, expected=3)
    assert found == [401, 200, 401]
    assert received.count(b"WWW-Authenticate") == 2


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
@pytest_twisted.ensureDeferred
async def test_a_refused_body_is_not_parsed_as_a_request(registry, method):
    """A proxy treats the bytes as a body, so the next client must not get a response to them.

    :param method: method of a request that is refused before its body arrives.
    """
    smuggled = keep_alive_request("GET", OPEN)
    for framing in ({"Content-Length": str(len(smuggled))}, {"Transfer-Encoding": "chunked"}):
        body = smuggled
        if "Transfer-Encoding" in framing:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled)
        target = UPLOADS if method == "POST" else TARGET
        target = f"{UPLOADS}6a1c4d0e-0000-4000-8000-000000000000" if method == "PATCH" else target
        last = head("GET", "/v2/public/app/manifests/latest")
        connection = await connect(registry.api.served.port)
        connection.send(keep_alive_request(method, target, **framing) + body + last)
        await connection.closed
        found = [line[:3] for line in connection.received.split(b"HTTP/1.1 ")[1:]]
        # Either the body was read to its end, or the connection was closed.
        assert found in ([b"401", b"200"], [b"401"])
        assert b'"tags"' not in connection.received


@pytest_twisted.ensureDeferred
async def test_a_request_with_ambiguous_framing_is_refused(registry):
    smuggled = keep_alive_request("GET", TARGET)
    for framing in (
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 100",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length : 0",
        "Content-Length: 0\r\n Transfer-Encoding: chunked",
    ):
        for target in (OPEN, TARGET):
            request = f"POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n".encode()
            connection = await connect(registry.api.served.port)
            connection.send(request + smuggled)
            await connection.closed
            assert connection.received.startswith(b"HTTP/1.1 400 "), framing
            assert connection.received.count(b"HTTP/1.1 ") == 1, framing
            assert not any(each in connection.received for each in HIDDEN)
    await registry.assert_still_serves()


@pytest.mark.parametrize("scheme", ["Basic", "Bearer", "Other", ""])
@pytest_twisted.ensureDeferred
async def test_very_long_credentials_are_refused(registry, scheme):
    for size, expected in ((1000, {401}), (16_000, {401}), (17_000, {431}), (2_000_000, {431})):
        for letter in ("A", "=", ".", ":", "\xff", "eyJ."):
            text = f"{scheme} {letter * (size // len(letter))}".strip()
            connection = await connect(registry.api.served.port)
            connection.send(head("GET", TARGET, {"Authorization": text}))
            await connection.until(lambda received: b"\r\n\r\n" in received)
            connection.abort()
            await connection.closed
            # The registry may close the connection before it has read all of a long header.
            status = connection.received[9:12]
            assert (int(status) if status else 431) in expected, (size, letter)
    await registry.assert_still_serves()


@pytest_twisted.ensureDeferred
async def test_the_number_of_scopes_is_limited(registry):
    if registry.scheme != OWN_TOKENS:
        return
    sent = {"Authorization": basic_header("root", USERS["root"])}
    many = [f"repository:team/a{number}:pull,push" for number in range(2000)]
    short = "+".join(many[:200])
    answer = await registry.api.request_target("GET", f"/auth/token?scope={short}", sent)
    assert (answer.status, len(answer.json()["scope"].split())) == (200, 100)
    # The token is short enough to be sent.
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    for name, status in (("a99", 404), ("a100", 401)):
        target = f"/v2/team/{name}/tags/list"
        assert (await registry.api.request_target("GET", target, headers)).status == status
    answer = await registry.api.request_target("GET", f"/auth/token?{'scope=x&' * 500}", sent)
    assert answer.status == 400
    answer = await registry.api.request_target("GET", f"/auth/token?scope={'+'.join(many)}", sent)
    assert answer.status == 414
    for text, status in ((" ".join(many), 200), ("a" * 60_000, 200), (" " * 60_000, 200),
                         (":" * 60_000, 200), ("a" * 70_000, 413)):  # fmt: skip
        form = f"grant_type=password&username=root&password={USERS['root']}&scope={text}"
        body = form.replace(" ", "+").encode()
        answer = await registry.api.request_target(
            "POST", "/auth/token", {"Content-Type": FORM}, body
        )
        assert answer.status == status
        if status == 200:
            assert len(answer.json()["scope"].split()) in {0, 100}
    await registry.assert_still_serves()


@pytest_twisted.ensureDeferred
async def test_an_anonymous_disconnect_leaves_no_files(registry):
    before = registry.files()
    for cut in (10, 60, -1):
        connection = await connect(registry.api.served.port)
        request = head("POST", f"{UPLOADS}?digest={digest_of(LAYER)}", {"Content-Length": "5"})
        connection.send(request[:cut])
        connection.abort()
        await connection.closed
    assert registry.files() == before
    await registry.assert_still_serves()
