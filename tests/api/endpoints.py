"""Access controllers, and a request for every method of every endpoint."""

from __future__ import annotations

import pytest
from twisted.internet.defer import fail, succeed
from zope.interface import implementer

from tests.support.manifests import digest_of
from twisted_registry.api import routes
from twisted_registry.auth.interfaces import IAccessController, IGrant
from twisted_registry.oci.errors import ErrorCode, RegistryError


@implementer(IGrant)
class Grant:
    user = "somebody"
    visible_repositories = None

    def __init__(self, allowed):
        self.permits = allowed


@implementer(IAccessController)
class RefusingController:
    """Fails with ``error`` unless every access is allowed."""

    def __init__(self, error, allowed=lambda _: False):
        self.error = error
        self.allowed = allowed
        self.asked = []

    def authorize(self, caller, accesses):
        self.asked.append((caller, tuple(accesses)))
        if accesses and all(map(self.allowed, accesses)):
            return succeed(Grant(self.allowed))
        return fail(self.error)


UNAUTHORIZED = RegistryError(
    ErrorCode.UNAUTHORIZED, headers=(("WWW-Authenticate", 'Basic realm="here"'),)
)
DENIED = RegistryError(ErrorCode.DENIED)
LAYER_DIGEST = digest_of(b"layer")
UPLOAD = "00000000-0000-4000-8000-000000000000"
ENDPOINTS = (routes.BASE, routes.CATALOG_LIST, *routes.ENDPOINTS)
ALL_REQUESTS = [
    pytest.param(endpoint, method, id=f"{endpoint.handler}-{method}")
    for endpoint in ENDPOINTS
    for method in endpoint.methods
]


def path_of(endpoint, name="a"):
    variable = {
        "reference": "latest",
        "digest": LAYER_DIGEST,
        "upload": UPLOAD,
        "": "",
    }[endpoint.variable]
    tail = [variable if part == "*" else part for part in endpoint.tail]
    return "/".join([name, *tail] if endpoint.has_name else tail)
