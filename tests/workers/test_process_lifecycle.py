"""Start, replacement and stop of several processes, with the signals of operators and systemd."""

from __future__ import annotations

import os
import re
import signal
import socket
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import pytest

from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    TWISTD,
    RegistryProcess,
    passing_socket,
    run,
    status_over_unix,
    wait_until,
    write_configuration,
)
from tests.workers.process_group import Family, ask, children, is_running, serving

DRAIN = "  workers: 2\n  draintimeout: 30s\n"


def slow_upload(connection):
    """Begin a PATCH on an open connection, and send half of the body."""
    response, _ = ask(connection, "POST", "/v2/a/blobs/uploads/", b"")
    connection.putrequest("PATCH", response.getheader("Location"))
    connection.putheader("Content-Length", "10")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100")
    connection.send(b"first")


def finish(connection):
    """Send the other half; return the status of the response."""
    connection.send(b"other")
    response = connection.getresponse()
    response.read()
    assert response.getheader("Range") == "0-9"
    return response.status


def has_no_errors(lines):
    """Whether the log contains neither an error nor a traceback."""
    wrong = [line for line in lines if "level=info" not in line]
    print(*wrong, sep="\n")
    return not [line for line in wrong if "Traceback" in line or "level=error" in line]


def test_connections_are_spread_over_the_processes(tmp_path):
    with serving(tmp_path) as family:
        for count in (1, 16):
            made = family.connections(count)
            for connection, _ in made:
                assert ask(connection, "GET", "/v2/")[0].status == 200
            shares = [pid for _, pid in made]
            assert count == 1 or 6 <= shares.count(family.first) <= 10
            for connection, _ in made:
                connection.close()
        status, out, lines = family.stop()
    assert status == 0
    assert out.count('"GET /v2/ HTTP/1.1" 200') == 17
    assert has_no_errors(lines)
    assert len([line for line in lines if "listening on" in line]) == 1
    ids = [re.findall(r" process\.pid=(\d+)", line) for line in lines]
    assert all(len(found) == 1 for found in ids)
    assert len({found for (found,) in ids}) == 2


def test_all_processes_accept_on_ipv4_and_ipv6(tmp_path):
    path = write_configuration(tmp_path, addr=":0", more=DRAIN.replace("30s", "1s"))
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        advice = f"docker tag IMAGE localhost:{server.port}/NAME"
        wait_until(lambda: any(advice in line for line in server.lines))
        for host in ("127.0.0.1", "::1") * 4:
            connection = HTTPConnection(host, server.port, timeout=30)
            assert ask(connection, "GET", "/v2/")[0].status == 200
            connection.close()
        status, out, lines = server.stop()
    assert status == 0
    # An IPv4 client is logged as such.
    assert sorted({line.split()[0] for line in out.splitlines()}) == ["127.0.0.1", "::1"]
    assert has_no_errors(lines)


def test_a_worker_that_is_killed_is_replaced(tmp_path):
    with serving(tmp_path) as family:
        (old,) = family.others
        os.kill(old, signal.SIGKILL)
        while old in family.others or not family.others:
            assert family.ask()[0].status == 200
        family.settle(2)
        (new,) = family.others
        assert new != old
        family.one_for_each()
        (line,) = family.log_lines(f"worker {old} has ended")
        assert "signal 9" in line
        assert family.stop()[0] == 0


def test_a_worker_that_gets_sigterm_drains_and_is_replaced(tmp_path):
    with serving(tmp_path, more=DRAIN) as family:
        (old,) = family.others
        _, connection = family.one_for_each()
        slow_upload(connection)
        os.kill(old, signal.SIGTERM)
        os.kill(old, signal.SIGTERM)
        wait_until(lambda: family.log_lines("no new connections"))
        assert is_running(old)
        assert finish(connection) == 202
        family.settle(2)
        assert not is_running(old)
        assert len(family.others) == 1
        status, _, lines = family.stop()
    assert status == 0
    assert has_no_errors(lines)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_of_a_terminal_does_not_end_a_worker(tmp_path, number):
    with serving(tmp_path) as family:
        (worker,) = family.others
        os.kill(worker, number)
        _, connection = family.one_for_each()
        assert ask(connection, "GET", "/v2/")[0].status == 200
        assert family.others == {worker}
        assert family.stop()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_all_processes(tmp_path, number):
    with serving(tmp_path, more=DRAIN) as family:
        (worker,) = family.others
        connections = family.one_for_each()
        for connection in connections:
            slow_upload(connection)
        family.process.send_signal(number)
        wait_until(lambda: len(family.log_lines("no new connections")) == 2)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", family.port)).close()
        own, other = connections
        assert finish(own) == 202
        # The first process has no requests left, and waits for the worker.
        with pytest.raises(TimeoutError):
            wait_for_end(family, 0.5)
        assert is_running(worker)
        assert finish(other) == 202
        status = family.process.wait(30)
        assert not is_running(worker)
        _, out, lines = family.stop()
    assert status == 0
    assert has_no_errors(lines)
    assert out.count('"PATCH ') == 2


def wait_for_end(family, seconds):
    wait = family.process.wait
    try:
        return wait(seconds)
    except Exception as error:
        raise TimeoutError from error


def test_a_drain_ends_after_the_drain_timeout(tmp_path):
    more = "  workers: 2\n  draintimeout: 100ms\n"
    with serving(tmp_path, more=more) as family:
        for connection in family.one_for_each():
            slow_upload(connection)
        status, _, lines = family.stop()
    assert status == 0
    assert has_no_errors(lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_replaces_no_worker(tmp_path, number):
    """systemd stops a unit, and a terminal a command, with a signal to all processes."""
    with serving(tmp_path, more="  workers: 3\n", count=3) as family:
        workers = family.others
        for pid in (*workers, family.first):
            os.kill(pid, number)
        assert family.process.wait(30) == 0
        assert not any(map(is_running, workers))
        _, _, lines = family.stop()
    assert has_no_errors(lines)
    assert len([line for line in lines if "started" in line]) == 2


def test_workers_end_when_the_first_process_is_killed(tmp_path):
    path = write_configuration(tmp_path, more=DRAIN)
    with Family(*SERVE, path, cwd=tmp_path) as family:
        (worker,) = family.others
        for connection in family.one_for_each():
            slow_upload(connection)
        family.process.kill()
        wait_until(lambda: not is_running(worker), 5)
        addr = f"127.0.0.1:{family.port}"
    # The address is free again.
    with RegistryProcess(
        *SERVE, write_configuration(tmp_path, addr=addr, more=DRAIN), cwd=tmp_path
    ) as again:
        assert again.ask()[0].status == 200


def test_workers_end_when_the_first_process_is_killed_during_their_start(tmp_path):
    with RegistryProcess(*SERVE, write_configuration(tmp_path, more=DRAIN), cwd=tmp_path) as server:
        (worker,) = wait_until(lambda: children(server.process.pid))
        server.process.kill()
        wait_until(lambda: not is_running(worker), 10)


def test_a_stop_during_the_start_of_workers(tmp_path):
    with RegistryProcess(*SERVE, write_configuration(tmp_path, more=DRAIN), cwd=tmp_path) as server:
        wait_until(lambda: children(server.process.pid))
        status, _, lines = server.stop()
    assert status == 0
    assert has_no_errors(lines)


def test_secrets_are_neither_in_the_command_line_nor_the_environment_of_a_worker(tmp_path):
    """Neither those of the file nor those of the environment; both are used."""
    path = write_configuration(tmp_path, more=f"{DRAIN}  headers:\n    X-From: [the file]\n")
    environ = {
        "REGISTRY_HTTP_SECRET": "overridden-secret",
        "REGISTRY_HTTP_HEADERS_X-From": "['the environment']",
    }
    with Family(*SERVE, path, cwd=tmp_path, **environ) as family:
        (worker,) = family.others
        command = Path(f"/proc/{worker}/cmdline").read_bytes()
        around = Path(f"/proc/{worker}/environ").read_bytes()
        for secret in (b"overridden-secret", b"do-not-tell", b"REGISTRY_"):
            assert secret not in command + around
        for connection in family.one_for_each():
            assert ask(connection, "GET", "/v2/")[0].getheader("X-From") == "the environment"
        status, out, lines = family.stop()
    assert status == 0
    assert "-secret" not in out + "".join(lines)


def test_several_processes_serve_a_unix_socket(tmp_path):
    path = tmp_path / "registry.sock"
    configuration = write_configuration(tmp_path, addr=path, more="  net: unix\n  workers: 2\n")
    with Family(*SERVE, configuration, cwd=tmp_path) as family:
        idle = []
        for _ in range(16):
            idle.append(socket.socket(socket.AF_UNIX))
            idle[-1].connect(str(path))
        assert status_over_unix(path) == 200
        (worker,) = family.others
        # Both hold some of them, beside their other sockets.
        counts = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (family.first, worker)]
        assert min(counts) > 15
        for each in idle:
            each.close()
        os.kill(worker, signal.SIGTERM)
        family.settle(2)
        assert path.exists()
        assert [status_over_unix(path) for _ in range(4)] == [200] * 4
        assert family.stop()[0] == 0
    assert not path.exists()


def test_several_processes_serve_a_socket_that_systemd_passes(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        path = write_configuration(tmp_path, addr="127.0.0.1:1", more="  workers: 2\n")
        command = (*passing_socket(waiting), *SERVE[1:], path)
        with Family(*command, cwd=tmp_path, pass_fds=(waiting.fileno(),)) as family:
            assert family.port == waiting.getsockname()[1]
            for connection in family.one_for_each():
                assert ask(connection, "GET", "/v2/")[0].status == 200
            assert family.stop()[0] == 0


def test_three_processes_serve_ipv6(tmp_path):
    path = write_configuration(tmp_path, addr="'[::1]:0'", more="  workers: 3\n")
    with Family(*SERVE, path, cwd=tmp_path, count=3) as family:
        (line,) = family.log_lines("listening on")
        port = int(re.search(r"\[::1\]:(\d+)", line)[1])
        made = [HTTPConnection("::1", port, timeout=30) for _ in range(6)]
        for connection in made:
            assert ask(connection, "GET", "/v2/")[0].status == 200
        for connection in made:
            connection.close()
        status, out, _ = family.stop()
    assert status == 0
    assert out.count("::1 - - ") == 6


def test_several_processes_under_twistd(tmp_path):
    path = write_configuration(tmp_path, more=DRAIN)
    with Family(*TWISTD, "registry", "--config", path, cwd=tmp_path) as family:
        (worker,) = family.others
        for connection in family.one_for_each():
            assert ask(connection, "GET", "/v2/")[0].status == 200
        status, out, lines = family.stop()
    assert status == -signal.SIGTERM
    assert out.count('"GET /v2/ HTTP/1.1" 200') == 2
    assert has_no_errors(lines)
    assert not is_running(worker)
    assert {line.rpartition("=")[2] for line in lines} >= {str(family.first), str(worker)}


def test_long_lines_of_the_access_log_are_not_interleaved(tmp_path):
    """The log goes to a pipe."""
    with serving(tmp_path) as family:
        connections = family.one_for_each()

        def hammer(connection, letter):
            for _ in range(150):
                path = f"/v2/?{letter * 7000}"
                ask(connection, "GET", path, headers={"User-Agent": letter * 7000})

        threads = [Thread(target=hammer, args=each) for each in zip(connections, "ab", strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status, out, _ = family.stop()
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 300)
    whole = re.compile(
        r'127\.0\.0\.1 - - \[[^]]+\] "GET /v2/\?(.)\1{6999} HTTP/1.1" 200 2 "-" "\1{7000}"'
    )
    assert all(whole.fullmatch(line) for line in lines)


DAEMON = (*TWISTD[:3], "--pidfile=it.pid", "--logfile=it.log")


def test_several_processes_under_a_twistd_daemon(tmp_path):
    path = write_configuration(tmp_path, more=DRAIN)
    status, _, lines = run(*DAEMON, "registry", "--config", path, cwd=tmp_path)
    assert status == 0, lines
    log, pidfile = tmp_path / "it.log", tmp_path / "it.pid"
    wait_until(lambda: log.exists() and "serving as worker" in log.read_text())
    first = int(pidfile.read_text())
    try:
        (worker,) = children(first)
        (line,) = [line for line in log.read_text().splitlines() if "serving as worker" in line]
        assert f"[twisted_registry.app.service#info {worker}]" in line
        port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text())[1])
        connections = [HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(2)]
        for connection in connections:
            assert ask(connection, "GET", "/v2/")[0].status == 200
        for connection in connections:
            connection.close()
    finally:
        os.kill(first, signal.SIGTERM)
    wait_until(lambda: not is_running(first))
    assert not is_running(worker)
    assert not pidfile.exists()
    assert "Traceback" not in log.read_text()


def test_several_processes_with_storage_in_memory_are_refused(tmp_path):
    text = "version: 0.1\nstorage: inmemory\nhttp:\n  workers: 2\n"
    status, out, lines = run(*SERVE, write_configuration(tmp_path, text), cwd=tmp_path)
    assert (status, out) == (1, "")
    (line,) = lines
    assert "http.workers: got 2, expected 1 with storage.inmemory" in line


def test_a_worker_that_cannot_start_is_retried(tmp_path):
    """The delay doubles, one line gives the reason, and the first process serves meanwhile."""
    store = tmp_path / "store"
    with RegistryProcess(
        *SERVE, write_configuration(tmp_path, CONFIGURATION, more=DRAIN), cwd=tmp_path
    ) as server:
        (worker,) = wait_until(lambda: children(server.process.pid))
        os.kill(worker, signal.SIGKILL)
        store.rename(tmp_path / "elsewhere")
        store.write_text("")
        wait_until(lambda: sum("starts in" in line for line in server.lines) >= 3)
        store.unlink()
        assert server.ask()[0].status == 200
        status, _, lines = server.stop()
    assert status == 0
    assert [re.search(r"starts in ([\d.]+) s", line)[1] for line in lines if "starts in" in line][
        :3
    ] == ["0.1", "0.2", "0.4"]
    said = [line for line in lines if "storage.filesystem.rootdirectory" in line]
    assert said
    assert "level=error" in said[0]
    assert not [line for line in lines if "Traceback" in line]
