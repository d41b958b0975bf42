"""Any sequence of requests to one upload, against a model: bytes so far, and whether it lives."""

from __future__ import annotations

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.setups import SETUPS
from tests.support.http_client import with_query
from tests.support.manifests import digest_of
from twisted_registry.repository.uploads import RunningHashes, UploadSecret

PIECES = st.binary(max_size=40)
#: Where the client says that it is: nowhere, by an URL (the newest, or the first), by a range.
PLACES = st.sampled_from(("bare", "newest", "first", "range", "range before", "range after"))
STEPS = st.one_of(
    st.tuples(st.just("patch"), PIECES, PLACES, st.booleans()),
    st.tuples(st.just("put"), PIECES, PLACES, st.sampled_from(("right", "wrong", "none"))),
    st.tuples(st.just("status")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("restart")),
)


class Model:
    """One upload as it should be."""

    def __init__(self, api, url, setup):
        self.api = api
        self.first = self.newest = url
        self.setup = setup
        self.content = b""
        self.alive = True
        self.stored = set()

    def place(self, place, piece):
        """The URL and headers of a request, and where its sender believes to be."""
        bare = self.first.partition("?")[0]
        size = len(self.content)
        if place == "bare":
            return bare, {}, size
        if place == "newest":
            return self.newest, {}, size
        if place == "first":
            return self.first, {}, 0
        start = size + {"range": 0, "range before": -1, "range after": 1}[place]
        if not piece or start < 0:
            return bare, {}, size
        return bare, {"Content-Range": f"{start}-{start + len(piece) - 1}"}, start

    def check_progress(self, response):
        last = max(len(self.content) - 1, 0)
        assert response.get("Range") == f"0-{last}"
        self.newest = response.get("Location")

    def gone(self, response):
        assert (response.status, response.code) == (404, "BLOB_UPLOAD_UNKNOWN")

    async def patch(self, piece, place, streamed):
        url, headers, start = self.place(place, piece)
        if streamed and piece:
            response = await self.api.stream("PATCH", url, piece, headers=headers)
        else:
            response = await self.api.request_target("PATCH", url, headers, piece)
        if not self.alive:
            self.gone(response)
        elif start != len(self.content):
            assert (response.status, response.code) == (416, "RANGE_INVALID")
            self.check_progress(response)
        else:
            assert response.status == 202
            self.content += piece
            self.check_progress(response)

    async def put(self, piece, place, digest):
        url, headers, start = self.place(place, piece)
        whole = self.content + piece
        if digest == "right":
            url = with_query(url, digest=digest_of(whole))
        elif digest == "wrong":
            url = with_query(url, digest=digest_of(whole + b"!"))
        response = await self.api.request_target("PUT", url, headers, piece)
        if not self.alive:
            self.gone(response)
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
            self.gone(response)

    async def cancel(self):
        response = await self.api.request_target("DELETE", self.first)
        if self.alive:
            assert response.status == 204
            self.alive = False
        else:
            self.gone(response)

    async def restart(self):
        """What a process keeps in memory is gone, as after a restart."""
        registry = self.api.served.registry
        registry.repository("a").store.running_hashes = RunningHashes()
        registry.upload_secret = UploadSecret(registry.driver)

    async def end(self):
        for content in self.stored:
            response = await self.api("GET", f"a/blobs/{digest_of(content)}")
            assert response.body == content
        await self.status()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=10))
@pytest.mark.setups(*(name for name in SETUPS if name in {"ours-memory", "stock-memory"}))
@pytest_twisted.ensureDeferred
async def test_any_sequence_of_requests_to_an_upload(api, setup, steps):
    model = Model(api, await api.start_upload(), setup)
    for name, *arguments in steps:
        await getattr(model, name)(*arguments)
    await model.end()
