"""Clients and drivers of the stores of :mod:`tests.support.s3_servers`."""

from __future__ import annotations

from uuid import uuid4

from twisted.internet import reactor

from tests.support.s3_servers import BUCKET
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.credentials import Credentials, StaticCredentials
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.sender import Sender
from twisted_registry.storage.s3.transport import make_transport


def make_client(store, *, access_key="", secret_key="", bucket=BUCKET):
    """Return a client of the test bucket, with its credentials unless others are given."""
    credentials = StaticCredentials(
        Credentials(access_key or store.access_key, secret_key or store.secret_key)
    )
    address = endpoint_address(bucket, store.endpoint)
    return S3Client(Sender(reactor, make_transport(reactor), address, credentials, "tests"))


def make_driver(store, *, root=None, **options):
    """Return a driver over the test bucket, below a new root unless one is given."""
    root = f"{uuid4().hex}/deeper" if root is None else root
    return S3Driver(make_client(store), reactor, root, **options)
