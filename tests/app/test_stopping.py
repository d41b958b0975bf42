"""Stops of registries that run as processes: what they wait for, and for how long."""

from __future__ import annotations

import hashlib
import http.client
import random
import signal
import socket
import time

import pytest

from tests.support.processes import (
    SERVE,
    TWISTD,
    RegistryProcess,
    passing_socket,
    prepared,
    wait_until,
    write_configuration,
)
from tests.workers.process_group import Family, is_running
from twisted_registry.app import stopping

WITH_TWISTD = (*TWISTD, "registry", "--config")
#: Half of it is sent before the stop.
CONTENT = random.Random(1).randbytes(6_000_000)
HALF = len(CONTENT) // 2
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


def start(folder, command, workers, draintimeout):
    """Start a registry with a number of processes, and wait until all of them serve."""
    more = f"  workers: {workers}\n  draintimeout: {draintimeout}\n"
    path = write_configuration(folder, more=more)
    return Family(*command, path, cwd=folder, count=workers)


def begin(server, connection, method="PUT"):
    """Send the head of an upload and half of its bytes; return the location of the upload."""
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"")[0].getheader("Location")
    query = f"&digest={DIGEST}" if method == "PUT" else ""
    connection.putrequest(method, location + query)
    connection.putheader("Content-Length", str(len(CONTENT)))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100")
    connection.send(CONTENT[:HALF])
    return location


def is_closed(port):
    """Whether nobody accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize(
    ("command", "workers"),
    [(SERVE, 1), (SERVE, 2), (WITH_TWISTD, 2)],
    ids=["serve", "serve-workers", "twistd-workers"],
)
def test_a_push_in_flight_ends_with_201_and_pulls_after_the_restart(tmp_path, command, workers):
    with start(tmp_path, command, workers, "30s") as server:
        connections = server.one_for_each() if workers > 1 else [server.connection()]
        for connection in connections:
            begin(server, connection)
        server.process.terminate()
        # Signals at once are one request to stop: systemd sends them to all processes.
        server.process.terminate()
        wait_until(lambda: is_closed(server.port))
        for connection in connections:
            connection.send(CONTENT[HALF:])
            response = connection.getresponse()
            assert (response.status, response.read()) == (201, b"")
        status, _, lines = server.stop()
    assert status == (0 if command is SERVE else -signal.SIGTERM)
    said = "\n".join(lines)
    assert "Traceback" not in said
    assert not any(words in said for words in ("Main loop", "starting on", " Closed)"))
    with start(tmp_path, command, workers, "0s") as server:
        assert server.ask("GET", f"/v2/a/blobs/{DIGEST}")[1] == CONTENT


def test_connections_wait_for_the_restart_at_a_socket_of_systemd(tmp_path):
    workers = 2
    more = f"  workers: {workers}\n  draintimeout: 30s\n"
    path = write_configuration(tmp_path, more=more)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = (*passing_socket(listening), *SERVE[1:], path)
        options = {"cwd": tmp_path, "pass_fds": (listening.fileno(),), "count": workers}
        with Family(*command, **options) as server:
            connection = server.connection()
            begin(server, connection)
            server.process.terminate()
            wait_until(lambda: len(server.log_lines("no new connections")) == workers)
            with socket.create_connection(("127.0.0.1", port), timeout=30) as waiting:
                waiting.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                connection.send(CONTENT[HALF:])
                assert connection.getresponse().status == 201
                assert server.stop()[0] == 0
                with Family(*command, **options) as again:
                    assert waiting.recv(1000).startswith(b"HTTP/1.1 200 ")
                    assert again.ask("GET", f"/v2/a/blobs/{DIGEST}")[1] == CONTENT


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_longer_than_draintimeout_is_cut_and_can_be_resumed(tmp_path, workers):
    with start(tmp_path, SERVE, workers, "100ms") as server:
        connection = server.one_for_each()[-1] if workers > 1 else server.connection()
        location = begin(server, connection, "PATCH")
        status, _, lines = server.stop()
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()
    assert status == 0
    assert "Traceback" not in "\n".join(lines)
    with start(tmp_path, SERVE, workers, "0s") as server:
        path = location[location.index("/v2/") :]
        response, _ = server.ask("GET", path)
        assert response.status == 204
        first = int(response.getheader("Range").partition("-")[2]) + 1
        # Bytes that the first process had not read yet are lost.
        assert 0 < first <= HALF
        where = response.getheader("Location")
        separator = "&" if "?" in where else "?"
        rest = CONTENT[first:]
        done, _ = server.ask("PUT", f"{where}{separator}digest={DIGEST}", rest)
        assert done.status == 201
        assert server.ask("GET", f"/v2/a/blobs/{DIGEST}")[1] == CONTENT


@pytest.mark.parametrize(
    ("command", "workers", "number", "expected"),
    [
        (SERVE, 1, signal.SIGTERM, 128 + signal.SIGTERM),
        (SERVE, 2, signal.SIGINT, 128 + signal.SIGINT),
        (WITH_TWISTD, 1, signal.SIGTERM, -signal.SIGTERM),
    ],
    ids=["serve", "serve-workers", "twistd"],
)
def test_a_second_signal_cuts_requests(tmp_path, command, workers, number, expected):
    with start(tmp_path, command, workers, "60s") as server:
        connection = server.one_for_each()[-1] if workers > 1 else server.connection()
        begin(server, connection)
        others = server.others
        server.process.terminate()
        wait_until(lambda: is_closed(server.port))
        time.sleep(0.6)
        assert server.process.poll() is None
        server.process.send_signal(number)
        assert server.process.wait(30) == expected
        wait_until(lambda: not any(map(is_running, others)))
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()
        text = "\n".join(server.stop()[2])
    assert "because of a second signal" in text
    assert "Traceback" not in text


def test_signals_at_once_and_at_the_end_do_not_change_the_exit_status(tmp_path):
    with RegistryProcess(*SERVE, write_configuration(tmp_path), cwd=tmp_path) as server:
        for _ in range(20):
            server.process.terminate()
            time.sleep(0.001)
        status, _, lines = server.stop()
    assert status == 0
    assert "Traceback" not in "\n".join(lines)


class Reactor:
    """Runs what waits for the start at once, and nothing else."""

    def callWhenRunning(self, function):
        function()

    def addSystemEventTrigger(self, *words):
        pass

    def callFromThread(self, *words):
        pass


def test_a_signal_during_the_handler_of_another_one_does_not_stop_twice(monkeypatch):
    times, stopped = [2.0, 1.0], []

    class Clock:
        def monotonic(self):
            now = times.pop()
            if times:
                signal.raise_signal(signal.SIGTERM)
            return now

    monkeypatch.setattr(stopping, "time", Clock())
    before = {number: signal.getsignal(number) for number in stopping.STOP_SIGNALS}
    try:
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
        stop = stopping.ProcessStop(Reactor(), 30, lambda: None)
        signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (stopped, stop.exit_status) == ([signal.SIGTERM], 0)


def test_a_stop_without_draintimeout_does_not_wait(tmp_path):
    with start(tmp_path, SERVE, 1, "0s") as server:
        connection = server.connection()
        begin(server, connection)
        status, _, lines = server.stop()
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()
    assert status == 0
    assert "Traceback" not in "\n".join(lines)


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path):
    statements = (
        "from twisted_registry.app import stopping; stopping.CLOSE_S = 0.5;"
        "from threading import Event, Thread; Thread(target=Event().wait, name='stuck').start()"
    )
    path = write_configuration(tmp_path)
    with RegistryProcess(*prepared(statements), path, cwd=tmp_path) as server:
        status, _, lines = server.stop()
    assert status == 1
    (line,) = [line for line in lines if "the stop has not ended after 0.5 s" in line]
    assert "threads: stuck" in line


def test_a_health_check_that_hangs_does_not_delay_the_stop(tmp_path):
    statements = (
        "from pathlib import Path; from threading import Event; stat = Path.stat;"
        "Path.stat = lambda path, **more:"
        " Event().wait() if path.name == 'hanging' else stat(path, **more)"
    )
    more = f"health:\n  file:\n  - file: {tmp_path}/hanging\n    interval: 100ms\n"
    path = write_configuration(tmp_path, more=more)
    with RegistryProcess(*prepared(statements), path, cwd=tmp_path) as server:
        assert server.ask()[0].status == 200
        status, _, lines = server.stop()
    assert status == 0
    assert not [line for line in lines if "level=info" not in line]
