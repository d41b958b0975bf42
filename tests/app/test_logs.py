"""The log of a registry in a process of its own."""

from __future__ import annotations

import io
import json
import os
import re
import socket
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.support.processes import SERVE, RegistryProcess, wait_until, write_configuration
from twisted_registry.app.logs import is_journal, logs_all_requests, wants_colours
from twisted_registry.config.loading import load_text


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_are_logged(tmp_path, workers):
    more = f"  workers: {workers}\nlog: {{formatter: json, reportcaller: true}}\n"
    path = write_configuration(tmp_path, more=more)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        response, _ = server.ask("GET", "/v2/", headers={"Referer": "http://x/"})
        started, _ = server.ask("POST", "/v2/a/b/blobs/uploads/")
        upload = started.getheader("Location").partition(str(server.port))[2]
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = f"PATCH {upload} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nleaves"
            client.sendall(head.encode())
        wait_until(lambda: any("client disconnected" in line for line in server.lines))
        _, _, lines = server.stop()
    documents = [json.loads(line) for line in lines]
    first, second, third = (each for each in documents if "http.response.status" in each)
    assert (first["msg"], first["level"]) == ("response completed", "info")
    assert first["http.request.id"] == response.getheader("X-Request-Id")
    assert first["http.request.referer"] == "http://x/"
    assert first["http.response.written"] == 2
    assert second["http.response.status"] == 202
    assert (third["msg"], third["level"]) == ("client disconnected", "info")
    assert third["http.response.status"] == 499
    assert third["vars.name"] == "a/b"
    assert re.fullmatch(r"[0-9a-f-]{36}", third["vars.uuid"])
    for document in documents:
        assert document["func"].startswith(("twisted_registry.", "twisted."))
        assert re.fullmatch(r"/.*\.py:\d+", document["file"])
    assert len({each["instance.id"] for each in documents if "instance.id" in each}) == 1


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("Content-Length: 99\r\n\r\n{", 408, "request timeout"),
        ("Transfer-Encoding: chunked\r\n\r\nno number\r\n", 400, "bad request"),
    ],
)
def test_a_body_that_is_refused_is_logged_and_counted_as_it_was_answered(
    tmp_path, body, status, error
):
    more = (
        "  limits: {bodytimeout: 100ms}\n"
        "  debug: {addr: '127.0.0.1:0', prometheus: {enabled: true}}\n"
        f"log: {{formatter: json, audit: '{tmp_path}/audit'}}\n"
    )
    path = write_configuration(tmp_path, more=more)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(f"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\n{body}".encode())
            assert client.recv(1000).startswith(f"HTTP/1.1 {status} ".encode())

        def find(text):
            return [line for line in server.lines if text in line]

        (line,) = wait_until(lambda: find("http.response.status"))
        (started,) = find("health, metrics and maintenance")
        address = re.search(r"127\.0\.0\.1:(\d+)", started)
        with closing(HTTPConnection(address[0])) as debug:
            debug.request("GET", "/metrics")
            metrics = debug.getresponse().read().decode()
        server.stop()
    document = json.loads(line)
    assert document["msg"] == "response completed with error"
    assert document["http.response.status"] == status
    assert document["err.message"] == error
    labels = f'code="{status}",handler="manifest",method="put"'
    assert f"registry_http_requests_total{{{labels}}} 1.0" in metrics
    audited = [json.loads(each) for each in (tmp_path / "audit").read_text().splitlines()]
    # The second one was refused before it was authorized.
    assert {each["status"] for each in audited if each["event"] == "push"} <= {status}


def configuration(log):
    return load_text(f"version: 0.1\nlog: {log}\nstorage: {{inmemory: }}\n", {}).configuration


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("{}", True),
        ("{level: debug}", True),
        ("{level: warn}", False),
        ("{level: error}", False),
    ],
)
def test_the_level_decides_whether_requests_are_logged(log, expected):
    assert logs_all_requests(configuration(log)) is expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
    ],
)
def test_colours_depend_on_the_environment(monkeypatch, environ, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert wants_colours() is expected


def test_the_journal_is_known_by_the_variable_of_systemd(tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        own = f"{status.st_dev}:{status.st_ino}"
        assert is_journal(stream, {"JOURNAL_STREAM": own})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{own}0"})
        assert not is_journal(stream, {})
        assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": own})
