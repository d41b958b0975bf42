"""``http.debug`` of a registry in a process of its own."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sys
import time
from base64 import b64encode
from contextlib import closing
from http.client import HTTPConnection

import bcrypt
import pytest
import pytest_twisted

from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    run,
    wait_until,
    write_configuration,
)
from tests.support.receiver import Receiver
from tests.support.services import HTTP, MEMORY, run_service
from twisted_registry.app.debug import is_loopback
from twisted_registry.config.document import MASK
from twisted_registry.config.http import parse_address
from twisted_registry.frame.errors import install_command

DEBUG = "  debug: {{addr: '127.0.0.1:0', prometheus: {{enabled: true, path: /a/metrics}}}}\n"


def started(folder, more=""):
    path = write_configuration(folder, CONFIGURATION + DEBUG + more)
    return RegistryProcess(*SERVE, path, cwd=folder)


def asking(server):
    """Return a function that sends requests to the debug address."""
    pattern = r"maintenance: http://127\.0\.0\.1:(\d+)"
    (port,) = {found[1] for line in server.lines if (found := re.search(pattern, line))}

    def ask(path, method="GET", **headers):
        connection = HTTPConnection("127.0.0.1", int(port), timeout=30)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    return ask


def test_pages_of_the_debug_address(tmp_path):
    with started(tmp_path) as server:
        ask = asking(server)
        assert ask("/debug/health") == (200, b"{}")
        status, content = ask("/debug/vars")
        assert status == 200
        assert json.loads(content)["registry"]["pid"] == server.process.pid
        assert server.ask("GET", "/v2/")[0].status == 200
        status, content = ask("/a/metrics")
        assert status == 200
        assert (
            b'registry_http_requests_total{code="200",handler="base",method="get"} 1.0' in content
        )
        assert ask("/metrics")[0] == ask("/a")[0] == ask("/v2/")[0] == 404
        assert server.ask("GET", "/debug/health")[0].status == 404
        with closing(server.connection()) as connection:
            connection.putrequest("PUT", "/v2/a/manifests/slow?secret=x")
            connection.putheader("Content-Length", "10")
            connection.endheaders(b"{")
            text = wait_until(
                lambda: shown if b"requests: 1" in (shown := ask("/debug/stacks")[1]) else b""
            )
        assert b" s PUT /v2/a/manifests/slow client=127.0.0.1 user=-\n" in text
        assert b"twisted_registry/api/manifests.py:" in text
        assert b"secret" not in text
        assert ask("/debug/maintenance/gc", "POST")[0] == 202

        def find_finished():
            # A run is counted before its result is stored.
            return [task for task in read_tasks(ask) if task["name"] == "gc" and task["last"]]

        (gc,) = wait_until(find_finished)
        assert (gc["enabled"], gc["next"], gc["last"]["result"]["blobs"]) == (False, None, 0)
        assert ask("/debug/maintenance/dust", "POST")[0] == 404
        assert server.stop()[0] == 0


def test_starting_a_task_needs_a_login_with_auth(tmp_path):
    with started(tmp_path, "auth: {{silly: {{realm: r, service: s}}}}\n") as server:
        ask = asking(server)
        assert ask("/debug/maintenance/gc", "POST")[0] == 401
        assert ask("/debug/maintenance/gc", "POST", Authorization="Bearer x")[0] == 202
        server.stop()


RULES = """\
auth: {{htpasswd: {{realm: r, path: {users}}}}}
access:
  rules:
  - {{repositories: ['**'], users: [ada], allow: [admin]}}
  - {{repositories: ['**'], users: [bob], allow: [push, delete]}}
"""


def test_starting_a_task_needs_the_right_admin_with_access_rules(tmp_path):
    users = tmp_path / "users"
    hashed = {name: bcrypt.hashpw(name.encode(), bcrypt.gensalt(4)) for name in ("ada", "bob")}
    users.write_text("".join(f"{name}:{entry.decode()}\n" for name, entry in hashed.items()))
    with started(tmp_path, RULES.replace("{users}", str(users))) as server:
        ask = asking(server)

        def post(task, name=None, password=""):
            credentials = b64encode(f"{name}:{password}".encode()).decode()
            headers = {} if name is None else {"Authorization": f"Basic {credentials}"}
            status, content = ask(f"/debug/maintenance/{task}", "POST", **headers)
            return status, json.loads(content).get("errors", [{"code": None}])[0]["code"]

        assert post("gc") == (401, "UNAUTHORIZED")
        assert post("gc", "ada", "wrong") == (401, "UNAUTHORIZED")
        assert post("gc", "eve", "eve") == (401, "UNAUTHORIZED")
        assert post("gc", "bob", "bob") == (403, "DENIED")
        # Without the right, unknown tasks cannot be told from known ones.
        assert post("dust", "bob", "bob") == (403, "DENIED")
        (gc,) = [one for one in read_tasks(ask) if one["name"] == "gc"]
        assert (gc["runs"], gc["running"], gc["last"]) == (0, None, None)
        for task in (
            "uploadpurging",
            "gc",
            "trash",
            "retention",
            "scrub",
            "tokenpurging",
            "quotas",
        ):
            assert post(task, "ada", "ada") == (202, None)
        wait_until(lambda: all(task["runs"] for task in read_tasks(ask)))
        tasks = read_tasks(ask)
        assert {task["name"] for task in tasks} == {
            *("uploadpurging", "gc", "trash", "retention", "scrub", "tokenpurging", "quotas")
        }
        content = ask("/a/metrics")[1].decode()
        for task in tasks:
            name, last = task["name"], task["last"]
            assert (last["failure"], task["failures"], task["running"]) == ("", 0, None)
            assert last["result"] is not None
            shown = {
                f'runs_total{{result="success",task="{name}"}}': 1.0,
                f'last_run_failed{{task="{name}"}}': 0.0,
                f'last_run_duration_seconds{{task="{name}"}}': last["seconds"],
                f'last_run_timestamp_seconds{{task="{name}"}}': last["began"],
            }
            for metric, value in shown.items():
                (line,) = [one for one in content.splitlines() if metric in one]
                assert float(line.split()[1]) == value
        server.stop()


def test_the_watermark_is_shown_in_pages_metrics_and_responses(tmp_path):
    marks = "storage:\n  maintenance: {{watermark: {{warn: 1%, refuse: 100%}}}}\n"
    text = (CONFIGURATION + DEBUG).replace("storage:\n", marks)
    with RegistryProcess(*SERVE, write_configuration(tmp_path, text), cwd=tmp_path) as server:
        ask = asking(server)

        def read_watermark():
            return json.loads(ask("/debug/maintenance")[1])["watermark"]

        wait_until(lambda: read_watermark()["used"] is not None)
        shown = read_watermark()
        assert 0 < shown["used"] < 1
        assert (shown["level"], shown["refuse"]) == ("high", 1.0)
        line = f"registry_storage_used_ratio {shown['used']}".partition(".")[0]
        assert line.encode() in ask("/a/metrics")[1]
        assert "warning" in {name.lower() for name, _ in server.ask("GET", "/v2/")[0].getheaders()}
        server.stop()


def read_tasks(ask):
    return json.loads(ask("/debug/maintenance")[1])["tasks"]


def test_metrics_sum_the_counts_of_all_processes(tmp_path):
    path = write_configuration(tmp_path, CONFIGURATION + DEBUG + "  workers: 2\n")
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        ask = asking(server)
        while not any("serving as worker" in line for line in server.lines):
            time.sleep(0.05)
        open_connections = []
        for _ in range(8):
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("GET", "/v2/")
            assert connection.getresponse().read() == b"{}"
            open_connections.append(connection)

        def sum_is_complete():
            content = ask("/a/metrics")[1]
            return b'requests_total{code="200",handler="base",method="get"} 8.0' in content

        wait_until(sum_is_complete)
        for connection in open_connections:
            connection.close()
        server.stop()


def test_an_address_in_use_ends_the_start(tmp_path):
    with started(tmp_path) as server:
        pattern = r"maintenance: http://(127\.0\.0\.1:\d+)"
        (taken,) = {found[1] for line in server.lines if (found := re.search(pattern, line))}
        other = tmp_path / "other"
        other.mkdir()
        path = write_configuration(other, CONFIGURATION + f"  debug: {{{{addr: '{taken}'}}}}\n")
        status, _, err = run(*SERVE, path, cwd=other)
        assert status == 1
        assert err[-1] == (
            f"twisted-registry: {path}: http.debug.addr: {taken}: Address already in use;"
            " twisted-registry doctor names the other process"
        )
        server.stop()


@pytest.mark.parametrize(("addr", "is_public"), [("127.0.0.1:0", False), ("0.0.0.0:0", True)])
@pytest_twisted.ensureDeferred
async def test_an_address_that_others_can_reach_is_a_warning(tmp_path, log_lines, addr, is_public):
    async with run_service(tmp_path, MEMORY + HTTP + f"  debug: {{{{addr: '{addr}'}}}}\n"):
        pass
    assert any(line.startswith("health, metrics and maintenance: ") for line in log_lines)
    warned = [line for line in log_lines if line.startswith("http.debug.addr: clients that can")]
    assert len(warned) == is_public


def test_metrics_without_the_extra_end_the_start(tmp_path):
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from twisted_registry.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    path = write_configuration(tmp_path, CONFIGURATION + DEBUG)
    status, _, err = run(sys.executable, "-c", script, "serve", path, cwd=tmp_path)
    assert status == 1
    assert err == [
        (
            f"twisted-registry: {path}: http.debug.prometheus.enabled: needs the package"
            f" prometheus_client; to install it: {install_command('metrics')}"
        )
    ]


def test_a_debug_address_without_host_is_on_ipv4_and_ipv6(tmp_path):
    path = write_configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path, REGISTRY_HTTP_DEBUG_ADDR=":0") as server:
        (port,) = {
            found[1]
            for line in server.lines
            if (found := re.search(r"maintenance: http://\[::\]:(\d+)", line))
        }
        for host in ("127.0.0.1", "::1"):
            connection = HTTPConnection(host, int(port), timeout=30)
            connection.request("GET", "/debug/health")
            assert connection.getresponse().read() == b"{}"
            connection.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5001", True),
        ("localhost:5001", True),
        ("[::1]:5001", True),
        ("tcp:5001:interface=127.0.0.1", True),
        ("unix:/run/debug.sock", True),
        (":5001", False),
        ("0.0.0.0:5001", False),
        ("192.0.2.1:5001", False),
        ("localhost.example:5001", False),
        ("tcp:5001", False),
        ("systemd:domain=INET:index=0", False),
    ],
)
def test_is_loopback(text, expected):
    assert is_loopback(parse_address(text)) is expected


def push_blob(server, content):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    path = f"/v2/a/blobs/uploads/?digest={digest}"
    assert server.ask("POST", path, content)[0].status == 201


def test_notifications_are_counted(tmp_path):
    answers = iter([500, 400])
    with Receiver(lambda _: next(answers, 200)) as receiver:
        section = f"notifications: {{{{endpoints: [{{{{name: hook, url: '{receiver.url}'}}}}]}}}}\n"
        with started(tmp_path, section) as server:
            ask = asking(server)
            push_blob(server, b"one")
            push_blob(server, b"two")

            def found():
                lines = ask("/a/metrics")[1].decode().splitlines()
                return sorted(line[9:] for line in lines if line.startswith("registry_notif"))

            expected = [
                'notifications_events_total{endpoint="hook",type="Events"} 2.0',
                'notifications_events_total{endpoint="hook",type="Failures"} 2.0',
                'notifications_events_total{endpoint="hook",type="Successes"} 1.0',
                'notifications_pending_total{endpoint="hook"} 0.0',
                'notifications_refused{endpoint="hook"} 1.0',
                'notifications_status_total{code="200 OK",endpoint="hook"} 1.0',
                'notifications_status_total{code="400 Bad Request",endpoint="hook"} 1.0',
                'notifications_status_total{code="500 Internal Server Error",endpoint="hook"} 1.0',
            ]
            wait_until(lambda: found() == expected)
            (endpoint,) = json.loads(ask("/debug/vars")[1])["registry"]["notifications"][
                "endpoints"
            ]
            assert endpoint["name"] == "hook"
            assert endpoint["Metrics"] == {
                "Pending": 0,
                "Refused": 1,
                "Events": 2,
                "Successes": 1,
                "Failures": 2,
                "Errors": 0,
                "Dropped": 0,
                "Statuses": {"200 OK": 1, "400 Bad Request": 1, "500 Internal Server Error": 1},
            }


VARIABLES = """\
version: 0.1
storage:
  inmemory: {{}}
  cache: {{blobdescriptor: inmemory}}
redis: {{addr: 'localhost:6379', password: not to be seen}}
notifications:
  endpoints:
  - name: hook
    url: http://user:not-to-be-seen@127.0.0.1:9/?key=not-to-be-seen
    headers: {{Authorization: [not to be seen]}}
    threshold: 3
    ignore: {{actions: [pull]}}
  - {{name: off, url: 'http://127.0.0.1:9/', disabled: true}}
http: {{addr: '127.0.0.1:0', debug: {{addr: '127.0.0.1:0'}}}}
"""


def test_variables_have_the_names_of_distribution_and_no_secrets(tmp_path):
    """Also without metrics."""
    path = write_configuration(tmp_path, VARIABLES)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        push_blob(server, b"blob")
        digest = hashlib.sha256(b"blob").hexdigest()
        assert server.ask("GET", f"/v2/a/blobs/sha256:{digest}")[0].status == 200
        content = asking(server)("/debug/vars")[1]
        write_configuration(tmp_path, VARIABLES.replace("name: hook", "name: other"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: b'"name": "other"' in asking(server)("/debug/vars")[1])
        server.stop()
    assert b"not to be seen" not in content
    assert b"not-to-be-seen" not in content
    found = json.loads(content)["registry"]
    uses = found["cache"]["storage"]["blobdescriptor"]
    assert uses.keys() == {"Requests", "Hits", "Misses"}
    config = found["redis"]["Config"]
    assert (config["addr"], config["password"]) == ("localhost:6379", MASK)
    assert found["redis"]["Active"] == 0
    (endpoint,) = found["notifications"]["endpoints"]
    assert endpoint.pop("Metrics")["Events"] == 1
    assert endpoint == {
        "name": "hook",
        "url": f"http://{MASK}@127.0.0.1:9/?{MASK}",
        "Headers": {"Authorization": [MASK]},
        "Timeout": 1_000_000_000,
        "Threshold": 3,
        "Backoff": 1_000_000_000,
        "IgnoredMediaTypes": None,
        "Ignore": {"MediaTypes": None, "Actions": ["pull"]},
    }
