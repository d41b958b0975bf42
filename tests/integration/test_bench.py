"""The benchmark: every case gives a row, and wrong responses are errors."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.integration.servers import program

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path):
    """The environment of the benchmark, with the stores in the folder of the test."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
    }


@pytest.fixture
def bench(environment):
    """Return a function that runs the benchmark, or another module of it."""

    def run(*arguments: object, module="tests.bench") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
            env=environment,
        )

    return run


@pytest.fixture
def quick_run(bench, tmp_path):
    """Return a function that makes a quick run and returns its result and its JSON."""

    def run(*arguments: object):
        written = tmp_path / "bench.json"
        done = bench("--quick", "--seconds", "0.1", "--json", written, *arguments)
        return done, json.loads(written.read_text())

    return run


PARTS = {
    "plain": ("--only", "16 conn.", "--group", "manifests", "--group", "blobs"),
    "pushes": ("--group", "pushes"),
    "lists": ("--group", "lists", "--group", "footprint"),
    "copies": ("--group", "copies"),
    "log": ("--group", "log"),
    "gated": ("--group", "gated"),
    "logins": ("--group", "logins", "--group", "metrics"),
    "tls": ("--group", "tls"),
    "workers": ("--group", "workers"),
    "s3": ("--group", "s3"),
}


@pytest.mark.parametrize(
    "part",
    # A gateway takes long to start.
    [pytest.param(part, marks=[pytest.mark.nightly] if part == "s3" else []) for part in PARTS],
)
def test_every_case_has_a_row(bench, quick_run, tmp_path, part):
    for name in ("docker-registry", "strace", "wrk", "nginx", "skopeo", "radosgw", "ceph-osd"):
        program(name)
    cases = bench("--quick", "--list", *PARTS[part]).stdout.splitlines()
    done, written = quick_run(*PARTS[part], "--charts", tmp_path / "charts", "--rst")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = written["rows"]
    for server in ("ours", "docker-registry"):
        assert [row["case"] for row in rows if row["server"] == server] == cases
    assert [row for row in rows if row["errors"] or row["median"] <= 0] == []
    assert all(row["fsyncs"] > 0 for row in rows if row["pushed"])
    printed = done.stdout.splitlines()
    for case in cases:
        assert sum(line.startswith(f"{case}  ") for line in printed) >= 2
    assert any(line.startswith("====") for line in printed)
    assert "Only the ratios mean anything" in done.stdout
    assert list((tmp_path / "charts").glob("*.svg"))
    assert f"{len(cases)}/{len(cases)} " in done.stderr
    assert {used["server"] for used in written["used"]} >= {"ours", "docker-registry"}
    if part in {"plain", "tls", "log", "workers"}:
        assert any(row["server"] == "nginx" for row in rows)
    if part == "lists":
        assert "times that of a bare process" in done.stdout


def test_parts_are_reported_again_without_measuring(bench, quick_run, tmp_path):
    done, _ = quick_run("--only", "by tag, 1 conn.")
    again = bench("--read", tmp_path / "bench.json", "--charts", tmp_path / "charts")
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert (tmp_path / "charts" / "pulls.svg").exists()


def test_the_workers_option_applies_to_every_case(quick_run):
    done, written = quick_run("--only", "by digest, 1 conn.", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"server": "ours", "setup": "2 workers"}.items() <= written["used"][0].items()


def test_a_sample_waits_for_a_response_however_short_it_is(quick_run):
    done, written = quick_run("--only", "by digest, 1 conn.", "--seconds", "0.000001")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["server"] for row in written["rows"] if row["median"] <= 0] == []


def test_the_list_option_names_the_chosen_cases(bench):
    whole = bench("--list").stdout.splitlines()
    assert not [case for case in whole if "bucket" in case]
    assert [
        case for case in bench("--list", "--group", "s3").stdout.splitlines() if "bucket" in case
    ]
    longer = bench("--list", "--group", "lists", "--names", "100000").stdout
    assert "tags list of 100000" in longer
    assert "n=1000 of 100000" in longer


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_what_it_measured(environment, tmp_path, by):
    # A shell starts background jobs, such as the lanes of .ci/run, with SIGINT ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "tests.bench", "--quick"]
    running = subprocess.Popen(
        [*command, "--group", "manifests", "--json", str(tmp_path / "bench.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert any(line.startswith("2/12 ") for line in running.stderr)
    running.send_signal(by)
    printed, _ = running.communicate(timeout=60)
    assert running.returncode == 130, printed
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["interrupted"]
    assert 1 <= len({row["case"] for row in written["rows"]}) < 12
    assert "Interrupted" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_a_run_leaves_no_files_behind(quick_run, tmp_path):
    quick_run("--only", "start to first 200")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


class Store(BaseHTTPRequestHandler):
    """Accepts every push and keeps manifests; ``server.lie`` changes its responses."""

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
    """A fake registry in a thread."""
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
def test_wrong_responses_are_errors(quick_run, store, lie, fault):
    store.lie = lie
    peer = f"peer=http://127.0.0.1:{store.server_port}"
    done, written = quick_run("--only", "GET by digest, 1 conn", peer)
    (row,) = [row for row in written["rows"] if row["server"] == "peer"]
    assert (row["fault"], bool(row["errors"])) == (fault, bool(fault))
    assert done.returncode == (1 if fault else 0), done.stdout + done.stderr
    assert (fault in done.stdout) if fault else (row["median"] > 0)


def test_an_unreachable_peer_fails_without_the_others(quick_run):
    done, written = quick_run("--only", "GET by digest, 1 conn", "peer=http://127.0.0.1:1")
    faults = {row["server"]: row["fault"] for row in written["rows"]}
    assert faults.pop("peer").startswith("it refused the content: ")
    assert not any(faults.values())
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("http://127.0.0.1:1",), "is not NAME=http://HOST:PORT"),
        (("nginx=http://127.0.0.1:1",), "nginx is a server that the benchmark starts"),
        (("--only", "no such case"), "no case has such a name"),
        (("--read", "/dev/null"), "/dev/null"),
    ],
)
def test_invalid_arguments_are_reported(bench, arguments, message):
    done = bench("--quick", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_both_collectors_mark_the_same_blobs(bench):
    program("docker-registry")
    options = ("--manifests=20", "--rounds=1", "--untagged")
    done = bench(*options, module="tests.bench.collecting")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        ["first", "docker-registry"],
        ["first", "ours"],
        ["second", "docker-registry"],
        ["second", "ours"],
    ]
    # Two of 20 manifests were deleted, each with four layers and a configuration.
    for row, removed in zip(rows, (12, 12, 0, 0), strict=True):
        assert f" 108 blobs marked, {removed} blobs and 0 manifests " in " ".join(row) + " "
