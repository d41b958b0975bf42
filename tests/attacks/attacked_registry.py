"""A registry with private images, and clients of its users, under each authentication scheme."""

from __future__ import annotations

import io
import re
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from attrs import define, field
from twisted.internet import reactor
from twisted.logger import eventAsText, globalLogPublisher

from tests.support.http_client import RegistryClient
from tests.support.manifests import descriptor, digest_of, image
from tests.support.passwords import basic_header, password_lines
from tests.support.processes import SERVE, write_configuration
from tests.support.services import HTTP, run_service
from tests.support.tokens import ISSUER, REALM, SERVICE, access_claim, claims, jwk, jwks, key, mint
from tests.workers.process_group import Family

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORDS, EXTERNAL_TOKENS, OWN_TOKENS = "passwords", "external tokens", "own tokens"
SCHEMES = (PASSWORDS, EXTERNAL_TOKENS, OWN_TOKENS)
#: Each scheme in this process, and with two worker processes.
SETUPS = [(scheme, workers) for workers in (1, 2) for scheme in SCHEMES]
#: Those in this process, for tests that look at its calls.
SETUPS_HERE = SETUPS[: len(SCHEMES)]

SERVER_SECRET = "nobody-knows-this"
USERS = {"root": "root-knows-this", "ada": "ada-knows-this", "bob": "bob-knows-this"}
CONFIGURATION = """\
version: 0.1
log:
  level: debug
  audit: {root}-audit.log
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
"""
RULES = """\
access:
  rules:
  - {{repositories: [public/**], anonymous: true, allow: [pull]}}
  - {{repositories: [team/**], users: [ada, bob], allow: [push, delete]}}
  - {{repositories: ['**'], users: [root], allow: [admin]}}
"""

#: A manifest that only root may read.
TARGET = "/v2/secret/app/manifests/latest"
#: Content that only root may read; each has a unique text.
LAYER = b"layer that nobody may read"
CONFIG = b'{"config": "that nobody may read"}'
SECRET_IMAGE = image(CONFIG, LAYER)
SIGNATURE = image(CONFIG, subject=descriptor(SECRET_IMAGE), artifactType="application/hidden")
#: Content of a file outside of the store.
CANARY = b"outside of the store"
#: Numbers of the addresses of clients that send wrong credentials.
CLIENTS = count(1)
HIDDEN = (LAYER, CONFIG, CANARY, b"application/hidden")


@define(eq=False)
class AttackedRegistry:
    """The registry under test.

    :ivar scheme: how its users log in.
    :ivar folder: the folder that holds the store and the files around it.
    :ivar logged: returns the access log, and all other log events, with all of their fields if it
        runs in this process.
    :ivar sent_credentials: the Authorization headers that its users sent.
    """

    scheme: str
    folder: object
    api: RegistryClient
    logged: Callable[[], str]
    sent_credentials: list[str] = field(factory=list)

    async def __call__(self, user, method, target, headers=(), body=None):
        """Send a request as a user, logged in as clients do, or without a login (``""``)."""
        sent = dict(headers)
        if user and self.scheme == PASSWORDS:
            sent["Authorization"] = basic_header(user, USERS[user])
        elif user:
            response = await self.api.request_target(
                method, target, sent, None if body is None else b""
            )
            if response.status != 401:
                return response
            sent["Authorization"] = f"Bearer {await self.token(user, scope_in(response))}"
        if "Authorization" in sent:
            self.sent_credentials.append(sent["Authorization"])
        return await self.api.request_target(method, target, sent, body)

    async def token(self, user, scope):
        """Return a token for a scope; the trusted token server grants every scope."""
        if self.scheme == EXTERNAL_TOKENS:
            return mint(key("P-256"), "ES256", self.claims(user, scope), kid="k")
        target = f"/auth/token?scope={quote(scope)}"
        response = await self.api.request_target(
            "GET", target, {"Authorization": basic_header(user, USERS[user])}
        )
        assert response.status == 200
        return response.json()["token"]

    def claims(self, user, scope="", **more):
        """Return the claims of a valid token."""
        return claims(reactor.seconds(), sub=user, access=access_claim(scope), **more)

    async def assert_still_serves(self):
        """Check that permitted requests still succeed and others are still refused."""
        digest = digest_of(SECRET_IMAGE)
        good = await self("root", "GET", f"/v2/secret/app/manifests/{digest}")
        assert (good.status, good.body) == (200, SECRET_IMAGE)
        assert (await self("", "GET", "/v2/public/app/tags/list")).status == 200
        assert (await self("", "GET", f"/v2/secret/app/manifests/{digest}")).status == 401

    async def assert_refused(self, authorization):
        """Check that credentials are refused and not repeated; return the challenge.

        Each attempt comes from another client, or it would be refused without a look at it.
        """
        headers = {
            "Authorization": authorization,
            "X-Forwarded-For": f"2001:db8:{next(CLIENTS):x}::",
        }
        answer = await self.api.request_target("GET", TARGET, headers)
        assert answer.status == 401
        secret = authorization.partition(" ")[2]
        assert len(secret) < 8 or secret not in answer.raw.decode("latin-1")
        return answer.get("WWW-Authenticate")

    @property
    def audit_log(self):
        """The path of the audit log."""
        return self.folder / "store-audit.log"

    def files(self):
        """Return all files on the disk and their content, except for unfinished uploads."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else None
            for path in self.folder.rglob("*")
            if "/_uploads" not in str(path)
            and "/twisted-registry/" not in str(path)
            and path != self.audit_log
        }


def scope_in(answer):
    """Return the scope in a challenge."""
    return "".join(re.findall('scope="([^"]*)"', answer.get("WWW-Authenticate")))


def auth_section(scheme, folder, more=""):
    """Return the sections of the configuration about users and rules."""
    if scheme == EXTERNAL_TOKENS:
        (folder / "keys.json").write_bytes(jwks(jwk(key("P-256"), kid="k")))
        token_options = (
            f"realm: {REALM}, service: {SERVICE}, issuer: {ISSUER}, jwks: {folder}/keys.json{more}"
        )
        return f"auth:\n  token: {{{{{token_options}}}}}\n{RULES}"
    (folder / "users").write_bytes(password_lines(**USERS))
    tokens = "" if scheme == OWN_TOKENS else "  tokens: {{disabled: true}}\n"
    return f"auth:\n  htpasswd: {{{{realm: here, path: {folder}/users}}}}\n{RULES}{tokens}"


@asynccontextmanager
async def serve_registry(scheme, folder, workers=1, http="", token="", more=""):
    """Serve a registry with images, one of them private, and a file outside of its store.

    :param workers: the number of processes; 1 for this process.
    :param http: further lines of the section ``http``.
    :param token: further keys of the section ``auth.token``.
    :param more: further sections of the configuration.
    """
    (folder / "canary").write_bytes(CANARY)
    text = (
        CONFIGURATION
        + HTTP
        + f"  secret: {SERVER_SECRET}\n  workers: {workers}\n{http}"
        + auth_section(scheme, folder, token)
        + more
    )
    serve = _serve_here(folder, text) if workers == 1 else _serve_apart(folder, text, workers)
    async with serve as (port, logged):
        api = RegistryClient(SimpleNamespace(host=f"127.0.0.1:{port}", port=port))
        registry = AttackedRegistry(scheme, folder, api, logged)
        for name in ("secret/app", "team/app", "public/app"):
            await _push_image(registry, name, LAYER if name == "secret/app" else b"anybody's")
            # The first request for referrers writes a marker to the disk.
            target = f"/v2/{name}/referrers/{digest_of(SECRET_IMAGE)}"
            assert (await registry("root", "GET", target)).status == 200
        await _push_manifest(registry, "secret/app", digest_of(SIGNATURE), SIGNATURE)
        yield registry


@asynccontextmanager
async def _serve_here(folder, text):
    access_log, events = io.StringIO(), []

    def observe(event):
        fields = {name: value for name, value in event.items() if not name.startswith("log_")}
        events.append(f"{eventAsText(event)} {fields!r}")

    globalLogPublisher.addObserver(observe)
    try:
        async with run_service(folder, text, access_log) as ask:
            yield urlsplit(ask.base).port, lambda: "".join(events) + access_log.getvalue()
    finally:
        globalLogPublisher.removeObserver(observe)


@asynccontextmanager
async def _serve_apart(folder, text, workers):
    path = write_configuration(folder, text)
    with Family(*SERVE, path, cwd=folder, count=workers) as family:
        yield family.port, lambda: "\n".join(family.lines) + family.output


async def _push_image(registry, name, layer):
    config = CONFIG if name == "secret/app" else b"{}"
    for content in (config, layer):
        target = f"/v2/{name}/blobs/uploads/?digest={digest_of(content)}"
        assert (await registry("root", "POST", target, body=content)).status == 201
    await _push_manifest(registry, name, "latest", image(config, layer))


async def _push_manifest(registry, name, reference, content):
    answer = await registry("root", "PUT", f"/v2/{name}/manifests/{reference}", (), content)
    assert answer.status == 201, answer
