"""Somebody at a shell, and the registry that he keeps, with a trash."""

from __future__ import annotations

import json
import sys

from tests.commands.image_push import sha256
from tests.support.processes import CONFIGURATION, run

TEXT = CONFIGURATION.replace(
    "http:",
    """\
  delete: {{enabled: true}}
  maintenance:
    trash: {{keep: 24h}}
    gc: {{grace: 0s}}
http:""",
)


class Operator:
    """Somebody at a shell, and the registry that he keeps."""

    def __init__(self, folder, server):
        self.folder = folder
        self.server = server

    def trash(self, *words):
        return self.command("trash", *words)

    def command(self, *words):
        path = self.folder / "registry.yml"
        return run(sys.executable, "-m", "twisted_registry", *words, path, cwd=self.folder)

    def documents(self, *words):
        status, out, faults = self.trash(*words, "--json")
        assert (status, faults) == (0, [])
        return [json.loads(line) for line in out.splitlines()]

    def delete(self, what):
        response, _ = self.server.ask("DELETE", f"/v2/a/{what}")
        assert response.status == 202

    def named(self, tag, method="GET"):
        response, _ = self.server.ask(method, f"/v2/a/manifests/{tag}", None, {"Accept": "*/*"})
        return response.getheader("Docker-Content-Digest")

    def layer(self, content):
        return self.server.ask("GET", f"/v2/a/blobs/{sha256(content)}")[1]
