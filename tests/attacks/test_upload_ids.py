"""The ID of an upload, which is in logs, without the signed URL."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.support.http_client import with_query
from tests.support.manifests import digest_of
from tests.support.passwords import basic_header, password_lines
from tests.support.services import HTTP, MEMORY, header, run_service

LAYER = b"layer"
ADA = {"Authorization": basic_header("ada", "ada-knows-this")}
RULES = "access:\n  anonymous: [pull, push]\n  authenticated: [pull, push]\n"
ONLY_RULES = "access:\n  anonymous: [pull, push]\n"
UPLOADS = "/v2/a/blobs/uploads/"


async def start(ask, headers=None):
    """Start an upload; returns its URL without and with its state."""
    response = await ask("POST", UPLOADS, headers=headers)
    assert response.code == 202
    url = header(response, "Location").removeprefix(ask.base)
    return url.partition("?")[0], url


async def answers(ask, url, headers=None):
    """Return the statuses of all steps of an upload; the last one ends it."""
    closing = with_query(url, digest=digest_of(LAYER))
    return [
        (await ask("GET", url, headers=headers)).code,
        (await ask("PATCH", url, headers=headers, data=LAYER)).code,
        (await ask("PUT", closing, headers=headers)).code,
        (await ask("DELETE", url, headers=headers)).code,
    ]


@pytest.mark.parametrize("user", [{}, ADA], ids=["anonymous", "ada"])
@pytest.mark.parametrize("state", ["", "?_state=", f"?_state={'A' * 200}"])
@pytest_twisted.ensureDeferred
async def test_an_upload_of_a_user_needs_its_signed_url(tmp_path, user, state):
    users = tmp_path / "users"
    users.write_bytes(password_lines(ada="ada-knows-this"))
    text = f"{MEMORY}{HTTP}auth: {{{{htpasswd: {{{{realm: here, path: {users}}}}}}}}}\n{RULES}"
    async with run_service(tmp_path, text) as ask:
        for owner in ({}, ADA):
            bare, url = await start(ask, owner)
            assert await answers(ask, bare + state, user) == [404] * 4
            assert (await ask("PATCH", url, headers=owner, data=LAYER)).code == 202


@pytest_twisted.ensureDeferred
async def test_an_anonymous_upload_needs_its_signed_url_where_rules_apply(tmp_path):
    async with run_service(tmp_path, f"{MEMORY}{HTTP}{ONLY_RULES}") as ask:
        bare, url = await start(ask)
        assert await answers(ask, bare) == [404] * 4
        closing = with_query(url, digest=digest_of(LAYER))
        assert (await ask("GET", url)).code == 204
        assert (await ask("PUT", closing, data=LAYER)).code == 201


@pytest_twisted.ensureDeferred
async def test_without_access_control_the_id_is_enough(tmp_path):
    async with run_service(tmp_path, f"{MEMORY}{HTTP}") as ask:
        bare, _ = await start(ask)
        assert await answers(ask, bare) == [204, 202, 201, 404]
