"""What a warm pull costs, in calls of Python functions: a number that no busy machine changes.

Each call costs about 0.3 us with what it does. Whoever adds some to a pull shall know it.
"""

from __future__ import annotations

import sys

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.support.http_client import digest_of
from tests.support.pulls import BLOB, MANIFEST, served, warm
from tests.support.tokens import ISSUER, REALM, SERVICE, claims, jwk, jwks, key, mint
from twisted_registry.auth.access import OpenAccess, SchemeAccess
from twisted_registry.auth.bearer import Bearer, TokenVerifier
from twisted_registry.auth.keys import make_keyring
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right


def calls(function, *args):
    """How many Python functions ``function(*args)`` calls."""
    names = []

    def note(frame, event, _):
        if event == "call":
            names.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function(*args)
    finally:
        sys.setprofile(before)
    return names


@pytest.mark.parametrize(
    ("path", "content", "known", "unknown"),
    [
        ("manifests/latest", MANIFEST, 69, 81),
        (f"manifests/{digest_of(MANIFEST)}", MANIFEST, 69, 81),
        (f"blobs/{digest_of(BLOB)}", BLOB, 77, 89),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_warm_pull_makes_few_calls(tmp_path, path, content, known, unknown):
    """``known`` bounds a request that was read before byte for byte, ``unknown`` any other."""
    head = f"GET /v2/a/b/{path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n".encode()
    async with served(tmp_path, OpenAccess()) as connected:
        await warm(connected, head, content)
        for more, bound in ((b"", known), (b"User-Agent: other\r\n", unknown)):
            assert_calls(connected, head + more, content, bound)


@pytest_twisted.ensureDeferred
async def test_a_login_makes_few_calls_more(tmp_path):
    """Be the credentials in front of, between or behind what else is said."""
    line = b"GET /v2/a/b/manifests/latest HTTP/1.1\r\n"
    keys = make_keyring(None, jwks(jwk(key("P-256"), kid="k")))
    check = TokenVerifier(ISSUER, SERVICE, keys, reactor.seconds, frozenset({"ES256"}))
    right = Right.make(["a/**", "!a/c"], ["push"])
    rules = AccessPolicy((AccessRule(right, frozenset({"me"})),))
    shown = mint(key("P-256"), "ES256", claims(reactor.seconds()), kid="k")
    credentials = f"Authorization: Bearer {shown}\r\n".encode()
    async with served(tmp_path, SchemeAccess(Bearer(REALM, check, reactor), rules)) as connected:
        for before, after in ((b"", b"Host: x\r\n"), (b"Host: x\r\n", b"")):
            head = line + before + credentials + after
            await warm(connected, head, MANIFEST)
            assert_calls(connected, head, MANIFEST, 70)
            # The same token, for something else.
            other = head.replace(b"latest", digest_of(MANIFEST).encode())
            await warm(connected, other, MANIFEST)
            await warm(connected, head, MANIFEST)
            assert_calls(connected, other, MANIFEST, 77)


def assert_calls(connected, head, content, bound):
    made = calls(connected.protocol.dataReceived, head + b"\r\n")
    assert connected.received().endswith(content), "it waited for something"
    assert len(made) <= bound, made
