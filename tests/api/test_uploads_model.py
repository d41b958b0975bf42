"""Any sequence of requests to one upload, compared with a model of the upload."""

from __future__ import annotations

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.setups import SETUPS
from tests.support.examples import examples
from tests.support.http_client import with_query
from tests.support.manifests import digest_of
from twisted_registry.repository.uploads import RunningHashes, UploadSecret

PIECES = st.binary(max_size=40)
#: How the client declares its offset: not at all, by the newest or first URL, or by a range.
POSITIONS = st.sampled_from(("bare", "newest", "first", "range", "range before", "range after"))
STEPS = st.one_of(
    st.tuples(st.just("patch"), PIECES, POSITIONS, st.booleans()),
    st.tuples(st.just("put"), PIECES, POSITIONS, st.sampled_from(("right", "wrong", "none"))),
    st.tuples(st.just("status")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("restart")),
)


class Model:
    """The expected state of one upload."""

    def __init__(self, api, url, setup):
        self.api = api
        self.first = self.newest = url
        self.setup = setup
        self.content = b""
        self.alive = True
        self.stored = set()

    def target(self, position, piece):
        """Return the URL and headers of a request, and the offset that they declare."""
        bare = self.first.partition("?")[0]
        size = len(self.content)
        if position == "bare":
            return bare, {}, size
        if position == "newest":
            return self.newest, {}, size
        if position == "first":
            return self.first, {}, 0
        start = size + {"range": 0, "range before": -1, "range after": 1}[position]
        if not piece or start < 0:
            return bare, {}, size
        return bare, {"Content-Range": f"{start}-{start + len(piece) - 1}"}, start

    def check_progress(self, response):
        last = max(len(self.content) - 1, 0)
        assert response.get("Range") == f"0-{last}"
        self.newest = response.get("Location")

    def check_unknown(self, response):
        assert (response.status, response.code) == (404, "BLOB_UPLOAD_UNKNOWN")

    async def patch(self, piece, position, streamed):
        url, headers, start = self.target(position, piece)
        if streamed and piece:
            response = await self.api.stream("PATCH", url, piece, headers=headers)
        else:
            response = await self.api.request_target("PATCH", url, headers, piece)
        if not self.alive:
            self.check_unknown(response)
        elif start != len(self.content):
            assert (response.status, response.code) == (416, "RANGE_INVALID")
            self.check_progress(response)
        else:
            assert response.status == 202
            self.content += piece
            self.check_progress(response)

    async def put(self, piece, position, digest):
        url, headers, start = self.target(position, piece)
        whole = self.content + piece
        if digest == "right":
            url = with_query(url, digest=digest_of(whole))
        elif digest == "wrong":
            url = with_query(url, digest=digest_of(whole + b"!"))
        response = await self.api.request_target("PUT", url, headers, piece)
        if not self.alive:
            self.check_unknown(response)
        elif digest == "none":
            assert (response.status, response.code) == (400, "DIGEST_INVALID")
        elif start != len(self.content):
            assert (response.status, response.code) == (416, "RANGE_INVALID")
            self.check_progress(response)
        else:
            self.alive = False
            if digest == "right":
                assert response.status == 201
                self.stored.add(whole)
            else:
                assert (response.status, response.code) == (400, "DIGEST_INVALID")

    async def status(self):
        response = await self.api.request_target("GET", self.first)
        if self.alive:
            assert response.status == 204
            self.check_progress(response)
        else:
            self.check_unknown(response)

    async def cancel(self):
        response = await self.api.request_target("DELETE", self.first)
        if self.alive:
            assert response.status == 204
            self.alive = False
        else:
            self.check_unknown(response)

    async def restart(self):
        """Drop what a process keeps in memory, as a restart does."""
        registry = self.api.served.registry
        registry.repository("a").store.running_hashes = RunningHashes()
        registry.upload_secret = UploadSecret(registry.driver)

    async def end(self):
        for content in self.stored:
            response = await self.api("GET", f"a/blobs/{digest_of(content)}")
            assert response.body == content
        await self.status()


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=10))
@pytest.mark.setups(*(name for name in SETUPS if name in {"httpsite-memory", "twisted-memory"}))
@pytest_twisted.ensureDeferred
async def test_any_sequence_of_requests_to_an_upload(api, setup, steps):
    model = Model(api, await api.start_upload(), setup)
    for name, *arguments in steps:
        await getattr(model, name)(*arguments)
    await model.end()
