"""The benchmark itself: every case gives a row, and a wrong answer does not count as speed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytestmark = pytest.mark.integration

BENCH = Path(__file__).parents[1] / "bench" / "bench.py"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def measured(tmp_path: Path, *arguments: object):
    """A quick run: how it ended, and the rows it wrote as JSON."""
    written = tmp_path / "bench.json"
    done = bench("--quick", "--json", written, *arguments)
    return done, json.loads(written.read_text())["rows"]


def test_every_case_has_a_row(tmp_path):
    cases = bench("--quick", "--list").stdout.splitlines()
    assert len(cases) > 20
    done, rows = measured(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["case"] for row in rows if row["server"] == "ours"] == cases
    assert all(row["median"] > 0 and not row["errors"] for row in rows)
    printed = done.stdout.splitlines()
    for case in cases:
        assert any(line.startswith(f"{case}  ") for line in printed)
    assert "Only the ratios mean anything" in done.stdout


class Store(BaseHTTPRequestHandler):
    """Takes every push and keeps manifests; its server says how it lies about them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.answer(202, Location="/v2/upload")

    def do_PATCH(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(202, Location="/v2/upload")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body:
            digest = hashlib.sha256(body).hexdigest()
            self.server.manifests |= {f"sha256:{digest}": body, "latest": body}
        self.answer(201)

    def do_GET(self):
        body = self.server.manifests[self.path.rpartition("/")[2]]
        self.answer(*self.server.lie(body))


@pytest.fixture
def store():
    """A registry in a thread; answers its server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.manifests = {}
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        (lambda body: (200, body), ""),
        (lambda body: (404, body), "status 404 instead of 200"),
        (lambda body: (200, body[:-1] + b"!"), "a body that differs"),
    ],
    ids=["truth", "status", "body"],
)
def test_wrong_answers_are_errors(tmp_path, store, lie, fault):
    store.lie = lie
    peer = f"peer=http://127.0.0.1:{store.server_port}"
    done, rows = measured(tmp_path, "--only", "GET by digest, 1 conn", peer)
    (row,) = [row for row in rows if row["server"] == "peer"]
    assert (row["fault"], bool(row["errors"])) == (fault, bool(fault))
    assert done.returncode == (1 if fault else 0), done.stdout + done.stderr
    assert (fault in done.stdout) if fault else (row["median"] > 0)


def test_a_peer_must_be_named():
    done = bench("--quick", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "is not NAME=http://HOST:PORT" in done.stderr
