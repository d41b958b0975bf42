"""Registries as services in this process, from a configuration."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager

import treq
from twisted.application.service import IService
from twisted.internet import reactor
from zope.interface.verify import verifyObject

from tests.support.processes import write_configuration
from twisted_registry.app.service import RegistryService
from twisted_registry.config.loading import load

MEMORY = "version: 0.1\nstorage:\n  inmemory: {{}}\n"
HTTP = "http:\n  addr: 127.0.0.1:0\n"


@asynccontextmanager
async def run_service(folder, text, log=None):
    """Run a service from a configuration; yields a function that sends requests to it.

    Its attribute ``service`` is the service, and ``base`` the URL of its root.
    """
    loaded = load(write_configuration(folder, text), {})
    service = RegistryService(loaded, reactor, {}, io.StringIO() if log is None else log)
    verifyObject(IService, service)
    service.privilegedStartService()
    service.startService()
    base = f"http://127.0.0.1:{service.getServiceNamed('http').address.port}"

    async def ask(method, path, **more):
        response = await treq.request(
            method, base + path, persistent=False, allow_redirects=False, **more
        )
        response.body = await response.content()
        return response

    ask.base = base
    ask.service = service
    try:
        yield ask
    finally:
        await service.stopService()


def header(response, name):
    """Return all values of a response header, or an empty string."""
    return ", ".join(response.headers.getRawHeaders(name, ()))
