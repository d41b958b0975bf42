from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest
from twisted.application.service import Application, IServiceCollection
from twisted.internet import reactor
from twisted.logger import ILogObserver
from twisted.python.usage import UsageError

from tests.support.processes import TWISTD, Running, configured, run, wait_until
from twisted_registry import __version__
from twisted_registry.app.service import RegistryService
from twisted_registry.tap import Options, makeService


@pytest.fixture(autouse=True)
def _stdout(monkeypatch):
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())


def options(*arguments, **parent):
    parsed = Options()
    parsed.parseOptions(arguments)
    parsed.parent = {"nodaemon": 1, **parent}
    return parsed


def test_options():
    assert options()["config"] is None
    assert options("--config", "x")["config"] == "x"
    assert options("-c", "x")["config"] == "x"
    with pytest.raises(UsageError):
        options("--nonsense")
    with pytest.raises(UsageError):
        options("x")


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        options("--version")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"twisted-registry {__version__}\n"


def test_a_service(tmp_path):
    service = makeService(options("--config", configured(tmp_path)), reactor)
    assert isinstance(service, RegistryService)
    application = Application("registry")
    service.setServiceParent(application)
    assert list(IServiceCollection(application)) == [service]
    assert application.getComponent(ILogObserver) is not None
    assert not (tmp_path / "store").exists()  # nothing is opened yet


@pytest.mark.parametrize(
    "parent", [{"logfile": "mine"}, {"logger": "mine"}, {"syslog": 1}, {"nodaemon": 0}]
)
def test_whoever_names_a_log_keeps_it(tmp_path, parent):
    parsed = options("--config", configured(tmp_path), **parent)
    application = Application("registry")
    makeService(parsed, reactor).setServiceParent(application)
    assert application.getComponent(ILogObserver) is None


def test_faults(tmp_path):
    path = configured(tmp_path, "version: 0.1\nhttp:\n  net: udp\n")
    with pytest.raises(SystemExit) as stopped:
        makeService(options("--config", path), reactor)
    lines = str(stopped.value.code).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("twisted-registry: ") for line in lines)


def test_twistd_knows_it(tmp_path):
    status, out, _ = run(*TWISTD, "--help", cwd=tmp_path)
    assert status == 0
    assert "registry" in out
    status, out, _ = run(*TWISTD, "registry", "--help", cwd=tmp_path)
    assert status == 0
    assert "--config" in out


def test_twistd_serves(tmp_path):
    path = configured(tmp_path, more="  draintimeout: 1s\n")
    with Running(*TWISTD, "registry", "--config", path, cwd=tmp_path) as server:
        headers = {"Authorization": "Basic c2VjcmV0"}
        response, body = server.ask("GET", "/v2/", headers=headers)
        assert (response.status, body) == (200, b"{}")
        status, out, lines = server.stop()
    # twistd ends as the signal that it was sent would have ended it.
    assert status == -signal.SIGTERM
    text = "\n".join(lines)
    assert f"configuration: {path}" in text
    assert 'level=info msg="listening on' in text
    (line,) = [line for line in out.splitlines() if "GET" in line]
    assert '"GET /v2/ HTTP/1.1" 200 2' in line
    for secret in ("c2VjcmV0", "do-not-tell"):
        assert secret not in out + text
    assert "Traceback" not in out + text


def heeds(process, number):
    """Whether a process has a handler for a signal."""
    text = Path(f"/proc/{process}/status").read_text()
    (mask,) = [line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_twistd_in_the_background_logs_to_its_file(tmp_path):
    path = configured(tmp_path)
    background = [*TWISTD[:3], "--pidfile=twistd.pid"]
    assert run(*background, "registry", "--config", path, cwd=tmp_path)[0] == 0
    process = int((tmp_path / "twistd.pid").read_text())
    try:
        log = tmp_path / "twistd.log"
        wait_until(lambda: "listening on" in log.read_text())
        # twistd lets its caller go before it heeds signals.
        wait_until(lambda: heeds(process, signal.SIGTERM))
    finally:
        os.kill(process, signal.SIGTERM)
        wait_until(lambda: not (tmp_path / "twistd.pid").exists())
    assert f"configuration: {path}" in log.read_text()


def test_twistd_in_the_background_says_at_the_terminal_that_it_could_not_start(tmp_path):
    text = "version: 0.1\nstorage: {{filesystem: {{rootdirectory: /dev/null/x}}}}\n"
    background = [*TWISTD[:3], "--pidfile=twistd.pid"]
    status, _, lines = run(
        *background, "registry", "--config", configured(tmp_path, text), cwd=tmp_path
    )
    assert status == 1
    assert "storage.filesystem.rootdirectory" in lines[0]
    said = "twisted-registry: storage.filesystem.rootdirectory: /dev/null/x: Not a directory"
    assert said in (tmp_path / "twistd.log").read_text()
    # It is told here before the one in the background has ended.
    wait_until(lambda: not (tmp_path / "twistd.pid").exists())


@pytest.mark.parametrize(
    "text",
    [
        "version: 0.1\nstorage: inmemory\nhttp:\n  net: udp\n",
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: /dev/null/x}}}}\n",
    ],
)
def test_twistd_does_not_serve_what_is_wrong(tmp_path, text):
    path = configured(tmp_path, text)
    status, out, lines = run(*TWISTD, "registry", "--config", path, cwd=tmp_path)
    assert status == 1
    (line,) = [line for line in lines if "twisted-registry: " in line]
    assert "Traceback" not in out + "\n".join(lines)
    assert "udp" in line or "rootdirectory" in line
