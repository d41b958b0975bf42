"""Several registries over one store, used in turn."""

from __future__ import annotations

import time
from http.client import HTTPException
from itertools import count
from urllib.parse import urlsplit

from attrs import field, frozen

from tests.integration.remote import Answer, Remote


@frozen
class Either(Remote):
    """Sends requests to the registries in turn, as a load balancer does; one may be down.

    :ivar attempts: how many requests are sent until one gets a response.
    """

    addresses: list[str] = field(factory=list)
    attempts: int = 60
    turns: count = field(factory=count)

    def request(self, method: str, path: str, body=None, headers=None) -> Answer:
        split = urlsplit(path)
        target = split.path + (f"?{split.query}" if split.query else "")
        for _ in range(self.attempts):
            address = self.addresses[next(self.turns) % len(self.addresses)]
            try:
                return Remote(address).request(method, target, body, headers)
            except (OSError, HTTPException):
                time.sleep(0.1)
        raise ConnectionError(f"no registry responds to {method} {path}")
