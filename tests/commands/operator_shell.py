"""Commands of an operator, on the store of a registry with a trash."""

from __future__ import annotations

import json
import sys

from tests.support.manifests import digest_of
from tests.support.processes import CONFIGURATION, run

TRASH_CONFIGURATION = CONFIGURATION.replace(
    "http:",
    """\
  delete: {{enabled: true}}
  maintenance:
    trash: {{keep: 24h}}
    gc: {{grace: 0s}}
http:""",
)


class Operator:
    """Runs commands on the store of a registry, and requests to it.

    :ivar folder: has ``registry.yml``.
    :ivar server: the registry, a :class:`~tests.support.processes.Running`.
    """

    def __init__(self, folder, server):
        self.folder = folder
        self.server = server

    def trash(self, *words):
        return self.command("trash", *words)

    def command(self, *words):
        path = self.folder / "registry.yml"
        return run(sys.executable, "-m", "twisted_registry", *words, path, cwd=self.folder)

    def trash_documents(self, *words):
        """Run ``trash`` with ``--json-lines``, and return its documents."""
        status, out, faults = self.trash(*words, "--json-lines")
        assert (status, faults) == (0, [])
        return [json.loads(line) for line in out.splitlines()]

    def delete(self, what):
        """Send DELETE for ``manifests/...`` or ``blobs/...``."""
        response, _ = self.server.ask("DELETE", f"/v2/a/{what}")
        assert response.status == 202

    def digest_of(self, reference, method="GET"):
        """The digest of a manifest by tag or digest, or None."""
        response, _ = self.server.ask(
            method, f"/v2/a/manifests/{reference}", None, {"Accept": "*/*"}
        )
        return response.getheader("Docker-Content-Digest")

    def layer(self, content):
        """The response body of a blob with this content."""
        return self.server.ask("GET", f"/v2/a/blobs/{digest_of(content)}")[1]
