from __future__ import annotations

import os

import pytest

from tests.storage.s3.fake_agent import Sink, no_result, result_of
from twisted_registry.storage.s3.transport import WRITE_BYTES, RequestBody, content_size

CONTENT = os.urandom(2 * WRITE_BYTES + 123)


@pytest.fixture
def signs():
    return []


@pytest.mark.parametrize(
    "content",
    [CONTENT, [CONTENT], [b"", CONTENT[:10], b"", CONTENT[10:]], b"small", [], [b""]],
    ids=lambda content: f"{type(content).__name__}-{content_size(content)}",
)
def test_everything_is_sent_in_pieces(content, signs):
    sink = Sink()
    body = RequestBody(content, signs.append)
    whole = content if isinstance(content, bytes) else b"".join(content)
    assert body.length == len(whole)
    assert result_of(body.startProducing(sink)) is None
    assert sink.content == whole
    assert b"" not in sink.pieces
    assert max(map(len, sink.pieces), default=0) <= WRITE_BYTES
    assert signs == [True] * len(sink.pieces) + [False]


def test_the_consumer_may_pause(signs):
    sink = Sink(pause_after=1)
    body = RequestBody(CONTENT, signs.append)
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
    assert signs == [True, True, True, False]


def test_stopped_it_sends_no_more(signs):
    sink = Sink(pause_after=1)
    body = RequestBody(CONTENT, signs.append)
    sink.producer = body
    done = body.startProducing(sink)
    body.stopProducing()
    body.resumeProducing()
    no_result(done)
    assert len(sink.pieces) == 1
