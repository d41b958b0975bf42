"""This registry embedded in another program, with access control and a gate for each request.

Usage: ``gated.py FOLDER PORT``. It measures pulls and pushes that ask both.
"""

import hashlib
import hmac
import sys
from base64 import b64decode

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from zope.interface import implementer

from twisted_registry.api.resource import RegistryResource
from twisted_registry.auth.access import OpenGrant
from twisted_registry.auth.interfaces import IAccessController
from twisted_registry.http.site import HTTPSite
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository.presence import NullGate
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.filesystem.driver import FilesystemDriver

_KEY = b"of every run"


def _hashed(password: str) -> bytes:
    return hmac.digest(_KEY, password.encode(), hashlib.sha256)


def _listed() -> frozenset[str]:
    digests = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(10_000))
    return frozenset(f"sha256:{each}" for each in digests)


@implementer(IAccessController)
@define
class Members:
    """Admits callers with the password, except to ``secret/``."""

    known: dict[str, bytes] = field(factory=lambda: {"bench": _hashed("password")})

    def authorize(self, caller, accesses):
        scheme, _, credentials = (caller.authorization or "").partition(" ")
        user, _, password = b64decode(credentials).decode().partition(":")
        known = self.known.get(user, b"")
        if scheme != "Basic" or not hmac.compare_digest(known, _hashed(password)):
            raise RegistryError(ErrorCode.UNAUTHORIZED)
        if any(access.name.startswith("secret/") for access in accesses):
            raise RegistryError(ErrorCode.DENIED)
        return OpenGrant(user)


@define
class ListGate(NullGate):
    """Hides the digests on a list, as during a collection."""

    digests: frozenset[str] = field(factory=_listed)

    def may_report_present(self, repository, digest):
        return succeed(str(digest) not in self.digests)


def main(folder: str, port: int) -> None:
    registry = Registry(FilesystemDriver(folder, reactor), reactor, gate=ListGate())
    root = Resource()
    root.putChild(b"v2", RegistryResource(registry, Members(), reactor))
    endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
    listening = endpoint.listen(HTTPSite(root, reactor))
    listening.addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
