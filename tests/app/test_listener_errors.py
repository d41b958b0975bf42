"""Error messages for ports that cannot be opened."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet.defer import fail
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from twisted_registry.app.listener import HTTPService, make_endpoint
from twisted_registry.config.http import parse_address
from twisted_registry.frame.errors import StartError


class Refusing:
    """An endpoint whose listen fails."""

    def __init__(self, error):
        self.error = error

    def listen(self, _):
        return fail(self.error)


@pytest.mark.parametrize(
    ("port", "number", "message"),
    [
        (443, errno.EACCES, (
            "Permission denied: a low port needs root, or the capability CAP_NET_BIND_SERVICE")),
        (443, errno.EADDRINUSE, (
            "Address already in use; twisted-registry doctor names the other process")),
        ("/s", errno.EACCES, "Permission denied"),
    ],
)  # fmt: skip
def test_a_failed_listen_names_the_key_and_the_reason(port, number, message):
    error = CannotListenError("", port, OSError(number, os.strerror(number)))
    service = HTTPService(Refusing(error), None, Clock(), 0, "http.addr: x")
    with pytest.raises(StartError) as caught:
        service.privilegedStartService()
    assert str(caught.value) == f"http.addr: x: {message}"


@pytest.mark.parametrize("text", ["nosuch:a:b", "ssl:443", "ssl:443:privateKey=/missing.pem"])
def test_an_endpoint_that_cannot_be_made_is_an_error_of_the_start(text):
    with pytest.raises(StartError, match=r"this endpoint cannot be made: .+"):
        make_endpoint(parse_address(text), MemoryReactorClock(), {})
