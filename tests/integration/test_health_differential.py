"""With the same health checks, this registry and Distribution 2.8.3 send the same responses."""

from __future__ import annotations

import json
import socket

import pytest
from attrs import frozen

from tests.integration.remote import Remote
from tests.integration.servers import DISTRIBUTION, HERE, OURS, Served
from tests.support.processes import free_port, wait_until

pytestmark = pytest.mark.integration

REQUESTS = [
    ("GET", "/"),
    ("GET", "/v2/"),
    ("HEAD", "/v2/a/manifests/1"),
    ("POST", "/v2/a/blobs/uploads/"),
    ("GET", "/nowhere"),
]
CHECKS = """\
  debug: {{addr: '{debug}'}}
health:
  storagedriver: {{enabled: true, interval: 100ms, threshold: 3}}
  file: [{{file: {file}, interval: 100ms}}]
  http: [{{uri: 'http://{debug}/debug/vars', interval: 100ms, timeout: 5s, threshold: 1}}]
  tcp: [{{addr: '{tcp}', interval: 100ms, timeout: 5s}}]
"""


@frozen
class Checked:
    """A registry and its debug address."""

    served: Served
    debug: Remote

    def responses(self):
        """Return status and error for each request."""
        return [self._response(*request) for request in REQUESTS]

    def _response(self, method, path):
        response = self.served.remote.request(method, path)
        if response.status != 503 or method == "HEAD":
            return response.status, None
        (error,) = json.loads(response.body)["errors"]
        return response.status, (error["code"], error["message"], error["detail"])

    def health(self):
        """Return the status of the page, and the names of the checks that fail."""
        response = self.debug.request("GET", "/debug/health")
        return response.status, set(json.loads(response.body))

    def is_down(self):
        return self.served.remote.request("GET", "/v2/").status == 503


def test_responses_while_a_check_fails_match_distribution(launcher, tmp_path):
    file, tcp = tmp_path / "down", f"{HERE}:{free_port()}"
    both = []

    def responses():
        first, second = ((each.responses(), each.health()) for each in both)
        assert first == second
        return first

    def all_are(*, down):
        return all(each.is_down() is down for each in both)

    with socket.create_server((HERE, int(tcp.rpartition(":")[2]))):
        for kind in (OURS, DISTRIBUTION):
            debug = f"{HERE}:{free_port()}"
            more = CHECKS.format(debug=debug, file=file, tcp=tcp)
            served = launcher.start(kind, tmp_path / kind, more=more)
            both.append(Checked(served, Remote(debug)))
        answered, page = responses()
        assert answered[1] == (200, None)
        assert page == (200, set())

        file.touch()
        wait_until(lambda: all_are(down=True))
        answered, page = responses()
        assert {status for status, _ in answered} == {503}
        assert page == (503, {str(file)})
        file.unlink()
        wait_until(lambda: all_are(down=False))

    # The TCP server has ended.
    wait_until(lambda: all_are(down=True))
    assert responses()[1] == (503, {tcp})
