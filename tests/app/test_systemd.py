"""Messages to systemd, received by a socket of the test."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import contextmanager

import pytest
from twisted.internet.task import Clock

from tests.support.processes import (
    SERVE,
    TWISTD,
    RegistryProcess,
    run,
    wait_until,
    write_configuration,
)
from tests.workers.process_group import Family
from twisted_registry.app.systemd import SystemdNotifier


@contextmanager
def manager(address):
    """Listen as systemd does; yields a function that returns the fields of the next message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0", 1))

        def receive(timeout_s=30):
            receiver.settimeout(timeout_s)
            lines = receiver.recv(65536).decode().split("\n")
            return dict(line.split("=", 1) for line in lines)

        yield receive


def arrives(receive):
    """Whether a message arrives within three times the interval of the watchdog."""
    try:
        receive(timeout_s=0.6)
    except TimeoutError:
        return False
    return True


class Reactor(Clock):
    """A clock that calls at once what waits for the reactor to run."""

    def callWhenRunning(self, function, *arguments):
        function(*arguments)


def make_notifier(reactor, address, alive=lambda: True, **environ):
    return SystemdNotifier(
        {"NOTIFY_SOCKET": address, **environ}, reactor, 20.0, lambda: "Listening\nhere", alive
    )


@pytest.mark.parametrize("kind", ["path", "abstract"])
@pytest.mark.parametrize("command", [SERVE, (*TWISTD, "registry")], ids=["serve", "twistd"])
def test_start_reload_and_stop_are_reported(tmp_path, command, kind):
    address = str(tmp_path / "notify") if kind == "path" else f"@{tmp_path}/notify"
    path = write_configuration(tmp_path, more="  draintimeout: 5s\n")
    with (
        manager(address) as receive,
        RegistryProcess(*command, path, cwd=tmp_path, NOTIFY_SOCKET=address) as server,
    ):
        status = f"Listening on http://127.0.0.1:{server.port}"
        assert receive() == {"READY": "1", "STATUS": status}
        assert server.ask()[0].status == 200
        before = time.monotonic_ns() // 1000
        server.process.send_signal(signal.SIGHUP)
        began = receive()
        assert began.pop("RELOADING") == "1"
        assert before <= int(began.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
        assert began == {}
        assert receive() == {"READY": "1", "STATUS": status}
        server.process.terminate()
        stopping = receive()
        assert stopping["STOPPING"] == "1"
        # draintimeout, and what else may take time.
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 20_000_000
        server.stop()


def test_the_watchdog_reports_only_while_the_event_loops_run(tmp_path):
    address = str(tmp_path / "notify")
    path = write_configuration(tmp_path, more="  workers: 2\n")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    with (
        manager(address) as receive,
        Family(*SERVE, path, cwd=tmp_path, **environ) as server,
    ):
        assert receive()["STATUS"].endswith(f":{server.port} with 2 processes")
        for _ in range(3):
            assert receive() == {"WATCHDOG": "1"}
        (worker,) = server.others
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: server.log_lines(f"worker {worker} does not answer"))
        # What was sent before may still arrive.
        while arrives(receive):
            pass
        os.kill(worker, signal.SIGCONT)
        assert receive() == {"WATCHDOG": "1"}
        assert server.stop()[0] == 0


def test_a_twistd_daemon_reports_its_process_id(tmp_path):
    address = str(tmp_path / "notify")
    path = write_configuration(tmp_path)
    command = [*TWISTD[:3], "--pidfile=twistd.pid", "registry", path]
    with manager(address) as receive:
        assert run(*command, cwd=tmp_path, NOTIFY_SOCKET=address)[0] == 0
        process = int((tmp_path / "twistd.pid").read_text())
        ready = receive()
        os.kill(process, signal.SIGTERM)
        assert (ready["READY"], ready["MAINPID"]) == ("1", str(process))
        assert receive()["STOPPING"] == "1"
    wait_until(lambda: not (tmp_path / "twistd.pid").exists())


def test_the_watchdog_is_for_the_process_that_systemd_has_started(tmp_path):
    address, reactor = str(tmp_path / "notify"), Reactor()
    with manager(address) as receive:
        other = make_notifier(reactor, address, WATCHDOG_USEC="2000000", WATCHDOG_PID="1")
        other.startService()
        reactor.advance(0)
        assert receive() == {"READY": "1", "STATUS": "Listening here"}
        assert reactor.getDelayedCalls() == []
        other.stopService()
        assert receive()["STOPPING"] == "1"
        own = make_notifier(
            reactor, address, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid())
        )
        own.startService()
        reactor.advance(0)
        assert receive()["READY"] == "1"
        assert receive() == {"WATCHDOG": "1"}
        reactor.advance(1)
        assert receive() == {"WATCHDOG": "1"}
        own.stopService()
        assert reactor.getDelayedCalls() == []


def test_a_failed_reload_is_the_status(tmp_path):
    address, reactor = str(tmp_path / "notify"), Reactor()
    with manager(address) as receive:
        notifier = make_notifier(reactor, address)
        notifier.reload_begins()
        assert receive()["RELOADING"] == "1"
        notifier.reload_ended("x.yml: log.level: got loud")
        assert receive() == {
            "READY": "1",
            "STATUS": "The last reload has failed: x.yml: log.level: got loud",
        }


def test_a_manager_that_is_gone_is_logged_and_does_no_harm(tmp_path, log_lines):
    reactor = Reactor()
    notifier = make_notifier(reactor, str(tmp_path / "gone"))
    notifier.startService()
    reactor.advance(0)
    notifier.stopService()
    assert log_lines[0].endswith("gone: No such file or directory")


def test_a_stop_before_the_reactor_runs_reports_no_start(tmp_path):
    address, reactor = str(tmp_path / "notify"), Reactor()
    with manager(address) as receive:
        notifier = make_notifier(reactor, address)
        notifier.startService()
        notifier.stopService()
        reactor.advance(0)
        assert receive()["STOPPING"] == "1"
        assert reactor.getDelayedCalls() == []
