"""The service of the first of several processes and of a worker, in this process."""

from __future__ import annotations

import io
import os
import runpy
import signal
import socket
from contextlib import nullcontext
from http.client import HTTPConnection
from pathlib import Path

import pytest
import pytest_twisted
import treq
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import deferLater

from tests.support.processes import write_configuration
from twisted_registry.app import process, worker
from twisted_registry.app.service import RegistryService
from twisted_registry.app.stopping import limit_stop
from twisted_registry.config.loading import load
from twisted_registry.frame.errors import StartError
from twisted_registry.workers.handover import STOP_MESSAGE, Handover, encode_message
from twisted_registry.workers.port import ProcessTable


@pytest.fixture
def loaded(tmp_path):
    return load(write_configuration(tmp_path, more="  workers: 2\n"), {})


async def status(port):
    response = await treq.get(f"http://127.0.0.1:{port}/v2/", persistent=False)
    await response.content()
    return response.code


class Supervisor(Service):
    """A supervisor that starts no process."""

    made = None

    def __init__(self, reactor, loaded, listening, table, **_):
        Supervisor.made = self
        self.set_configuration = lambda loaded: None
        self.listening = listening
        self.table = table


@pytest_twisted.ensureDeferred
async def test_first_process_and_worker_share_connections_and_drain(loaded, monkeypatch):
    monkeypatch.setattr("twisted_registry.workers.supervisor.WorkerSupervisor", Supervisor)
    first = RegistryService(loaded, reactor, {}, io.StringIO())
    assert first.is_first
    first.privilegedStartService()
    first.startService()
    assert first.getServiceNamed("workers") is Supervisor.made
    port = first.getServiceNamed("http").address.port
    assert await status(port) == 200
    handover = Handover(
        loaded,
        1,
        os.dup(Supervisor.made.listening.fileno()),
        os.dup(Supervisor.made.table.fileno()),
    )
    other = RegistryService(loaded, reactor, {}, io.StringIO(), handover=handover)
    assert not other.is_first
    # One process runs the tasks.
    assert "maintenance" in first.namedServices
    assert "maintenance" not in other.namedServices
    other.privilegedStartService()
    other.startService()
    # The process with fewer connections accepts the next one.
    watching = ProcessTable(os.dup(Supervisor.made.table.fileno()), 2, 0)
    made = [HTTPConnection("127.0.0.1", port) for _ in range(2)]
    for each in made:
        each.connect()
        await deferLater(reactor, 0.1)
    assert not watching.others_have_fewer()
    assert await status(port) == 200
    await first.stopService()
    # No process accepts connections, but requests in progress continue.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    other.abort_requests()
    await other.stopService()
    for each in made:
        each.close()
    watching.close()


@pytest_twisted.ensureDeferred
async def test_a_single_process_starts_no_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("twisted_registry.workers.supervisor.WorkerSupervisor", None)
    service = RegistryService(load(write_configuration(tmp_path), {}), reactor, {}, io.StringIO())
    service.privilegedStartService()
    assert service.is_first
    assert "workers" not in service.namedServices
    await service.stopService()


class Reactor:
    """A reactor whose run calls what was scheduled, then ``during``."""

    def __init__(self):
        self.readers = []
        self.stopped = 0
        self.starting = []
        self.triggers = []

    def addReader(self, reader):
        self.readers.append(reader)

    def removeReader(self, reader):
        self.readers.remove(reader)

    def callWhenRunning(self, function, *arguments):
        self.starting.append((function, arguments))

    def callFromThread(self, function):
        function()

    def addSystemEventTrigger(self, *trigger):
        self.triggers.append(trigger)

    def stop(self):
        self.stopped += 1
        if self.stopped > 1:
            raise ReactorNotRunning

    def run(self):
        for function, arguments in self.starting:
            function(*arguments)
        self.during()


class Double:
    """A RegistryService that records the calls."""

    made = None

    def set_certificate(self, bundle):
        """Ignore the certificate."""

    def __init__(self, loaded, reactor, environ, access_log, handover, process_log):
        Double.made = self
        self.handover = handover
        self.environ = environ
        self.did = []

    def privilegedStartService(self):
        self.did.append("listen")

    def startService(self):
        self.did.append("start")

    def stopService(self):
        self.did.append("stop")

    def abort_requests(self):
        self.did.append("abort")


@pytest.fixture
def control(loaded, monkeypatch):
    """Both ends of the control pipe, with a handover in it; restores the signal handler."""
    monkeypatch.setattr(worker, "RegistryService", Double)
    monkeypatch.setattr(worker.globalLogBeginner, "beginLoggingTo", lambda *_, **__: None)
    before = signal.getsignal(signal.SIGTERM)
    reading, writing = os.pipe()
    os.write(writing, encode_message(Handover(loaded, 1)))
    yield reading, writing
    signal.signal(signal.SIGTERM, before)
    os.close(reading)
    os.close(writing)


def test_a_worker_serves_until_the_stop_message_or_sigterm(control):
    reading, writing = control

    def during():
        assert Double.made.did == ["listen", "start"]
        os.write(writing, encode_message(STOP_MESSAGE))
        (reader,) = working.readers
        reader.doRead()
        assert working.stopped == 1
        os.kill(os.getpid(), signal.SIGTERM)
        assert working.stopped == 2

    working = Reactor()
    working.during = during
    assert worker.run_worker(working, reading) == 0
    assert Double.made.handover.number == 1
    assert Double.made.environ["PATH"]  # a bucket's credentials may be there
    limit, stop = working.triggers
    assert limit == ("before", "shutdown", limit_stop, 0)
    assert stop == ("before", "shutdown", Double.made.stopService)


def test_a_worker_aborts_requests_when_the_first_process_has_ended(control):
    reading, _ = control

    def during():
        working.readers[0].connectionLost(None)
        assert working.stopped == 1

    working = Reactor()
    working.during = during
    assert worker.run_worker(working, reading) == 0
    assert Double.made.did == ["listen", "start", "abort"]


def test_a_worker_that_cannot_start_prints_one_line(control, loaded, monkeypatch, capsys):
    def refuse(_):
        raise StartError("no such place")

    monkeypatch.setattr(Double, "privilegedStartService", refuse)
    assert worker.run_worker(Reactor(), control[0]) == 1
    assert capsys.readouterr().err == f"twisted-registry: {loaded.origin}: no such place\n"


def test_a_worker_without_a_first_process_ends(monkeypatch):
    monkeypatch.setattr(worker, "RegistryService", None)
    reading, writing = os.pipe()
    os.close(writing)
    assert worker.run_worker(None, reading) == 0
    os.close(reading)


def test_the_access_log_is_locked_with_several_processes(loaded, tmp_path, monkeypatch):
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr("sys.__stdout__", out)
        stream = process.open_access_log(loaded)
        stream.write("line\n")
        assert (tmp_path / "out").read_text() == "line\n"
        single = load(write_configuration(tmp_path), {})
        assert process.open_access_log(single) is out


PROGRAM = Path(process.__file__).with_name("__main__.py")


def test_the_worker_program_ignores_signals_for_the_first_process(monkeypatch):
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    during = []

    def work(given):
        during.append((given is reactor, *map(signal.getsignal, before)))
        return 3

    monkeypatch.setattr(worker, "run_worker", work)
    monkeypatch.setattr("twisted_registry.app.standalone.freeze_imports", nullcontext)
    try:
        with pytest.raises(SystemExit) as ended:
            # Not run_module: pytest imports the package itself, because it has a plugin.
            runpy.run_path(PROGRAM, run_name="__main__")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 3
    assert during == [(True, *[signal.SIG_IGN] * 3)]
