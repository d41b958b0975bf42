"""A minimal server on Twisted: a reactor, twisted.web, and one constant page.

The time to start this registry is compared with it. The only argument is the port.
"""

from __future__ import annotations

import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402 - the reactor is chosen first
from twisted.web.resource import Resource  # noqa: E402 - as above
from twisted.web.server import Site  # noqa: E402 - as above


class Page(Resource):
    """Sends the same response to every GET."""

    isLeaf = True

    def render_GET(self, request):
        request.setHeader(b"Content-Type", b"application/json")
        return b"{}"


if __name__ == "__main__":
    reactor.listenTCP(int(sys.argv[1]), Site(Page()), interface="127.0.0.1")
    reactor.run()
