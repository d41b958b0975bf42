from __future__ import annotations

import os
import weakref

import pytest

from tests.storage.s3.fake_agent import Sink, no_result, result_of
from twisted_registry.storage.s3.interfaces import content_size
from twisted_registry.storage.s3.transport import WRITE_BYTES, RequestBody

CONTENT = os.urandom(2 * WRITE_BYTES + 123)


@pytest.fixture
def progress():
    return []


@pytest.mark.parametrize(
    "content",
    [CONTENT, [CONTENT], [b"", CONTENT[:10], b"", CONTENT[10:]], b"small", [], [b""]],
    ids=lambda content: f"{type(content).__name__}-{content_size(content)}",
)
def test_content_is_sent_in_pieces(content, progress):
    sink = Sink()
    body = RequestBody.from_content(content, progress.append)
    whole = content if isinstance(content, bytes) else b"".join(content)
    assert body.length == len(whole)
    assert result_of(body.startProducing(sink)) is None
    assert sink.content == whole
    assert b"" not in sink.pieces
    assert max(map(len, sink.pieces), default=0) <= WRITE_BYTES
    assert progress == [True] * len(sink.pieces) + [False]


def test_consumer_may_pause_and_resume(progress):
    sink = Sink(pause_after=1)
    body = RequestBody.from_content(CONTENT, progress.append)
    sink.producer = body
    done = body.startProducing(sink)
    assert len(sink.pieces) == 1
    for count in (2, 3):
        body.resumeProducing()
        assert len(sink.pieces) == count
        no_result(done)
    body.resumeProducing()
    assert result_of(done) is None
    body.resumeProducing()
    assert progress == [True, True, True, False]


def test_stopped_body_sends_nothing(progress):
    sink = Sink(pause_after=1)
    body = RequestBody.from_content(CONTENT, progress.append)
    sink.producer = body
    done = body.startProducing(sink)
    body.stopProducing()
    body.resumeProducing()
    no_result(done)
    assert len(sink.pieces) == 1


class Blocks(list):
    """A content that a weak reference can watch."""


@pytest.mark.parametrize("is_stopped", [False, True])
def test_content_is_released_when_the_request_is_over(progress, is_stopped):
    """A request in a reference cycle would keep the memory of a whole chunk."""
    content = Blocks([CONTENT])
    watched = weakref.ref(content)
    sink = Sink(pause_after=1 if is_stopped else None)
    body = RequestBody.from_content(content, progress.append)
    del content
    sink.producer = body
    body.startProducing(sink)
    if is_stopped:
        body.stopProducing()
    assert watched() is None
    assert body.length == len(CONTENT)
