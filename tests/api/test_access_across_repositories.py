"""Access rules and scopes of requests about more than one repository or user."""

from __future__ import annotations

import hashlib
import re

import pytest
import pytest_twisted
from attrs import field, frozen
from twisted.internet.defer import succeed
from zope.interface import implementer

from tests.api.setups import SITES
from tests.api.test_tags_and_catalog import follow
from tests.support.http_client import with_query
from tests.support.manifests import descriptor, digest_of, image
from twisted_registry.api import catalog
from twisted_registry.auth.access import IScheme, Login, SchemeAccess
from twisted_registry.auth.interfaces import CATALOG, Access, Identity
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right
from twisted_registry.storage.memory import MemoryDriver

LAYER = b"a secret layer"
DIGEST = digest_of(LAYER)


@frozen
class Scope:
    """The scope of a token, such as ``repository:a:pull``."""

    text: str

    def allows(self, identity, access):
        return f"{access.type}:{access.name}:{access.action}" in self.text.split()


@implementer(IScheme)
@frozen
class NamedScheme:
    """A scheme that trusts the user name in the Authorization header."""

    scopes: dict = field(factory=dict)

    def find_cached_login(self, caller):
        name = caller.authorization
        if name is None:
            return None
        scope = self.scopes.get(name)
        return Login(Identity(name), None if scope is None else Scope(scope))

    def authenticate(self, caller):
        return succeed(self.find_cached_login(caller))

    def challenge(self, caller, accesses, error):
        scope = " ".join(f"{access.name}:{access.action}" for access in accesses)
        return f'Named scope="{scope}",error="{error}"'

    def close(self):
        return succeed(None)


def rules(*allowed, scopes=None):
    """Make a controller; each text has a user, patterns and actions, separated by spaces."""
    access_rules = []
    for text in allowed:
        user, patterns, actions = text.split()
        right = Right.make(patterns.split(","), actions.split(","))
        access_rules.append(
            AccessRule(right, anonymous=True)
            if user == "-"
            else AccessRule(right, frozenset({user}))
        )
    return SchemeAccess(NamedScheme(scopes or {}), AccessPolicy(tuple(access_rules)))


class UserClient:
    """An API client that sends the name of a user."""

    def __init__(self, api, name):
        self.api, self.headers = api, {"Authorization": name}

    async def __call__(self, method, path, headers=(), body=None):
        return await self.api(method, path, {**self.headers, **dict(headers)}, body)

    async def request_target(self, method, target, headers=(), body=None):
        return await self.api.request_target(
            method, target, {**self.headers, **dict(headers)}, body
        )


@pytest.fixture
def serve_filled(start, clock):
    """Fill repositories without access control, then serve them with it."""

    def serve_filled(access, *names):
        driver = MemoryDriver(clock)

        class Block:
            async def __aenter__(self):
                async with start(driver=driver) as api:
                    for name in names:
                        await api.push_blob(LAYER, name)
                self.block = start(driver=driver, access=access)
                return await self.block.__aenter__()

            async def __aexit__(self, *error):
                return await self.block.__aexit__(*error)

        return Block()

    return serve_filled


only = pytest.mark.setups(*SITES)
NAMES = ["a", "a-b", "a.b", "a/b", "a/b/c", "a0", "b", "team/one", "team/two", "z"]


@only
@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("**", NAMES),
        ("a/**", ["a/b", "a/b/c"]),
        ("a*", ["a", "a-b", "a.b", "a0"]),
        ("team/*,!team/two", ["team/one"]),
        ("z,a", ["a", "z"]),
        ("**/b,b", ["a/b", "b"]),
        ("**,!a/**", [name for name in NAMES if not name.startswith("a/")]),
        ("nothing/**", []),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 100])
@pytest_twisted.ensureDeferred
async def test_the_catalog_lists_what_may_be_pulled(serve_filled, patterns, expected, number):
    access = rules(f"ada {patterns} pull", "ada z/** delete", "bob ** pull")
    async with serve_filled(access, *NAMES) as api:
        ada = UserClient(api, "ada")
        found, sizes = await follow(ada, f"_catalog?n={number}", "repositories")
        assert found == expected
        assert all(size == number for size in sizes[:-1])
        assert (await follow(UserClient(api, "bob"), "_catalog", "repositories"))[0] == NAMES
        response = await UserClient(api, "eve")("GET", "_catalog")
        assert (response.status, response.json()) == (200, {"repositories": []})
        assert (await api("GET", "_catalog")).status == 401
        last = await ada("GET", "_catalog?last=a0")
        assert last.json()["repositories"] == [name for name in expected if name > "a0"]


@only
@pytest_twisted.ensureDeferred
async def test_delete_access_deletes_a_whole_repository(serve_filled):
    async with serve_filled(rules("ada a,b pull,push", "bob b delete"), "a", "b") as api:
        for name in ("a", "b"):
            assert (await api("DELETE", f"_repository/{name}")).status == 401
            response = await UserClient(api, "ada")("DELETE", f"_repository/{name}")
            assert (response.status, response.code) == (403, "DENIED")
        # The response does not reveal whether the repository exists.
        for name in ("a", "none"):
            assert (await UserClient(api, "bob")("DELETE", f"_repository/{name}")).status == 403
        assert (await UserClient(api, "bob")("DELETE", "_repository/b")).status == 202
        assert (await UserClient(api, "ada")("GET", "b/tags/list")).code == "NAME_UNKNOWN"
        assert (await UserClient(api, "ada")("GET", "a/tags/list")).status == 200


@only
@pytest_twisted.ensureDeferred
async def test_the_link_of_a_page_that_ends_early_is_encrypted(serve_filled, monkeypatch):
    monkeypatch.setattr(catalog, "_MAX_SCANNED_NAMES", 3)
    secrets = [f"secret/{number}" for number in range(10)]
    async with serve_filled(rules("ada **/x pull"), *secrets, "t/x", "z/x") as api:
        ada = UserClient(api, "ada")
        seen = []
        original = ada.request_target

        async def ask(*arguments):
            seen.append(await original(*arguments))
            return seen[-1]

        ada.request_target = ask
        found, sizes = await follow(ada, "_catalog?n=5", "repositories")
        assert found == ["t/x", "z/x"]
        assert sizes == [0, 0, 0, 2]
        links = [response.get("Link") for response in seen[:-1]]
        assert not any("secret" in link for link in links)
        assert len({len(link) for link in links}) == 1, "their length tells nothing either"
        (place,) = re.findall("last=([^&]+)&", links[0])
        response = await ada("GET", f"_catalog?n=5&last={place[:-9]}{place[-8:]}")
        assert (response.status, response.code) == (400, "PAGINATION_NUMBER_INVALID")


@only
@pytest_twisted.ensureDeferred
async def test_a_page_scans_only_visible_prefixes(serve_filled, monkeypatch):
    monkeypatch.setattr(catalog, "_MAX_SCANNED_NAMES", 4)
    others = [f"{letter}/{number}" for letter in "abcxyz" for number in range(5)]
    async with serve_filled(rules("ada m/**,n pull"), *others, "m/1", "m/2", "n") as api:
        response = await UserClient(api, "ada")("GET", "_catalog")
        assert response.json() == {"repositories": ["m/1", "m/2", "n"]}
        assert response.get("Link") is None


MOUNT = f"a/blobs/uploads/?mount={DIGEST}"


@only
@pytest_twisted.ensureDeferred
async def test_a_mount_without_pull_access_starts_an_upload(serve_filled):
    access = rules("ada a push", "bob ** push", "- open push")
    async with serve_filled(access, "secret") as api:
        ada, bob = UserClient(api, "ada"), UserClient(api, "bob")
        responses = [
            await ada("POST", MOUNT + more, body=b"")
            for more in ("&from=secret", "&from=missing", "")
        ]
        for response in responses:
            assert (response.status, response.body) == (202, b"")
            assert response.get("Docker-Content-Digest") is None
            assert "secret" not in response.raw.decode()
        assert (
            len({tuple(sorted(dict(each.headers.getAllRawHeaders()))) for each in responses}) == 1
        )
        assert (await ada("GET", f"a/blobs/{DIGEST}")).status == 404
        # An anonymous caller is not challenged either.
        mount = MOUNT.replace("a/", "open/", 1)
        assert (await api("POST", f"{mount}&from=secret", body=b"")).status == 202
        assert (await bob("POST", f"{MOUNT}&from=secret", body=b"")).status == 201
        assert (await ada("GET", f"a/blobs/{DIGEST}")).status == 200


@only
@pytest_twisted.ensureDeferred
async def test_a_token_without_the_source_is_challenged(serve_filled):
    push = "repository:a:pull repository:a:push"
    access = rules(
        "ada ** push", "eve a push",
        scopes={"ada": push, "eve": push},
    )  # fmt: skip
    async with serve_filled(access, "secret") as api:
        response = await UserClient(api, "ada")("POST", f"{MOUNT}&from=secret", body=b"")
        assert response.status == 401
        assert response.get("WWW-Authenticate") == (
            'Named scope="a:pull a:push secret:pull",error="insufficient_scope"'
        )
        response = await UserClient(api, "eve")("POST", f"{MOUNT}&from=secret", body=b"")
        assert response.status == 202
        # The challenge of the first request names all scopes that the mount needs.
        response = await api("POST", f"{MOUNT}&from=secret", body=b"")
        assert "secret:pull" in response.get("WWW-Authenticate")


@only
@pytest_twisted.ensureDeferred
async def test_a_mount_from_any_repository_requires_full_access(serve_filled):
    scopes = {"bob": "repository:a:pull repository:a:push"}
    access = rules("ada ** push", "bob ** push", "eve **,!other push", scopes=scopes)
    async with serve_filled(access, "secret") as api:
        for name, status in (("bob", 202), ("eve", 202), ("ada", 201)):
            assert (await UserClient(api, name)("POST", MOUNT, body=b"")).status == status, name


@only
@pytest_twisted.ensureDeferred
async def test_content_of_another_repository_is_not_readable(serve_filled):
    """By digest, as a blob, as a part of a manifest, as a subject, and in a list of referrers."""
    access = rules("ada a push", "bob secret,a push")
    async with serve_filled(access, "secret") as api:
        ada, bob = UserClient(api, "ada"), UserClient(api, "bob")
        await bob("POST", f"secret/blobs/uploads/?digest={digest_of(b'{}')}", body=b"{}")
        hidden = image(b"{}", LAYER)
        signature = image(b"{}", subject=descriptor(hidden), artifactType="application/secret")
        for manifest in (hidden, signature):
            response = await bob("PUT", f"secret/manifests/{digest_of(manifest)}", body=manifest)
            assert response.status == 201
        for method in ("GET", "HEAD"):
            assert (await ada(method, f"a/blobs/{DIGEST}")).status == 404
            assert (await ada(method, f"a/manifests/{digest_of(hidden)}")).status == 404
            assert (await ada(method, f"secret/blobs/{DIGEST}")).status == 403
            assert (await ada(method, f"secret/referrers/{DIGEST}")).status == 403
        await ada("POST", f"a/blobs/uploads/?digest={digest_of(b'{}')}", body=b"{}")
        response = await ada("PUT", "a/manifests/latest", body=hidden)
        assert (response.status, response.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        # A subject may be missing, so its presence in another repository is not revealed.
        mine = image(b"{}", subject=descriptor(hidden))
        assert (await ada("PUT", "a/manifests/mine", body=mine)).status == 201
        response = await ada("GET", f"a/referrers/{digest_of(hidden)}")
        assert [each["digest"] for each in response.json()["manifests"]] == [digest_of(mine)]
        assert b"application/secret" not in response.body


@only
@pytest_twisted.ensureDeferred
async def test_an_upload_of_another_user_is_unknown(serve_filled):
    access = rules("ada a push", "bob a push", "- open,a push")
    async with serve_filled(access) as api:
        ada, bob = UserClient(api, "ada"), UserClient(api, "bob")
        url = (await ada("POST", "a/blobs/uploads/", body=b"")).get("Location")
        url = (await ada.request_target("PATCH", url, body=b"half")).get("Location")
        bare = url.partition("?")[0]
        for who in (bob, api):
            for target in (url, bare, f"{bare}?_state=x"):
                # Without a state, an anonymous caller may be the one who started the upload.
                if who is api and target != url:
                    continue
                for method in ("GET", "PATCH", "PUT", "DELETE"):
                    body = None if method == "GET" else b"x"
                    response = await who.request_target(
                        method, with_query(target, digest=DIGEST), (), body
                    )
                    assert response.status == 404, (method, target)
        # The user's own upload needs its state as well.
        assert (await ada.request_target("PATCH", bare, body=b"x")).code == "BLOB_UPLOAD_UNKNOWN"
        response = await ada.request_target("GET", url)
        assert (response.status, response.get("Range")) == (204, "0-3")
        digest = f"sha256:{hashlib.sha256(b'half' + LAYER).hexdigest()}"
        response = await ada.request_target("PUT", with_query(url, digest=digest), body=LAYER)
        assert response.status == 201


@only
@pytest_twisted.ensureDeferred
async def test_listing_the_catalog_requires_a_token_scope(serve_filled):
    access = rules("ada b pull", scopes={"ada": "repository:b:pull"})
    async with serve_filled(access, "a", "b") as api:
        assert (await UserClient(api, "ada")("GET", "_catalog")).status == 401
    wide = rules("ada b pull", scopes={"ada": f"registry:{CATALOG.name}:{CATALOG.action}"})
    async with serve_filled(wide, "a", "b") as api:
        response = await UserClient(api, "ada")("GET", "_catalog")
        assert response.json() == {"repositories": ["b"]}
    assert not Scope("").allows(None, Access("repository", "b", "pull"))
