"""The Debian package under a real systemd: the life of its service.

systemd-nspawn boots a copy of this machine (:mod:`tests.integration.machines`).
"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.integration.machines import BootedMachine
from tests.integration.servers import program
from tests.support.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(300)]

UNIT = "twisted-registry"
ETC = "/etc/twisted-registry"
CONFIGURATION = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/twisted-registry}}
log: {audit: /var/log/twisted-registry/audit.log}
http: {addr: '127.0.0.1:5000', draintimeout: 30s}
"""
WITH_USERS = f"{CONFIGURATION}auth: {{htpasswd: {{realm: here, path: {ETC}/users}}}}\n"
#: Pushes a blob: half of it, and the other half when the standard input has a line.
PUSH = """\
import hashlib, http.client, sys
content = bytes(4_000_000)
connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=60)
connection.request("POST", "/v2/a/blobs/uploads/", b"")
response = connection.getresponse()
response.read()
path = "/v2/" + response.getheader("Location").partition("/v2/")[2]
digest = hashlib.sha256(content).hexdigest()
connection.putrequest("PUT", path + "&digest=sha256:" + digest)
connection.putheader("Content-Length", str(len(content)))
connection.endheaders()
connection.send(content[: len(content) // 2])
print("half", flush=True)
sys.stdin.readline()
connection.send(content[len(content) // 2 :])
print(connection.getresponse().status)
"""
#: Prints the status of a response.
ASK = """\
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
connection.request("GET", "/v2/")
print(connection.getresponse().status)
"""


class Service:
    """The service of the package on a machine that systemd has booted."""

    def __init__(self, machine):
        self.machine = machine
        self._since = "now"

    def reset(self):
        """Let the service run with the plain configuration, and forget what it has logged."""
        self.systemctl("stop", UNIT)
        self.machine.run("rm", "-rf", f"/etc/systemd/system/{UNIT}.service.d", f"{ETC}/users")
        self.configure(CONFIGURATION)
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed")
        self._since = self.machine.run("date", "+%F %T.%N").strip()
        self.systemctl("start", UNIT)

    def configure(self, text):
        (self.machine.root / f"{ETC[1:]}/config.yml").write_text(text)

    def edit(self, *lines):
        """Change the unit, as ``systemctl edit`` does."""
        folder = self.machine.root / f"etc/systemd/system/{UNIT}.service.d"
        folder.mkdir(exist_ok=True)
        (folder / "override.conf").write_text("\n".join(("[Service]", *lines, "")))
        self.systemctl("daemon-reload")

    def systemctl(self, *words):
        """Run systemctl, which must succeed."""
        return self.machine.run("systemctl", *words)

    def show(self, name):
        """Return a property of the unit."""
        return self.systemctl("show", "--value", f"--property={name}", UNIT).strip()

    def pids(self):
        """Return the ids of its processes there: the loader, and the one that serves."""
        main = self.show("MainPID")
        (serving,) = self.machine.run("cat", f"/proc/{main}/task/{main}/children").split()
        return main, serving

    def ask(self, port=5000):
        """Return the status of ``GET /v2/``."""
        return int(self.machine.run("python3", "-c", ASK, str(port)))

    def journal(self, *words):
        """Return what systemd and the service have logged since the last reset."""
        return self.machine.run(
            "journalctl", f"--unit={UNIT}", f"--since={self._since}", "--output=cat", *words
        )

    def is_restarted(self, count):
        """Whether it has been started again so many times, and serves."""
        return self.show("NRestarts") == str(count) and self.show("ActiveState") == "active"


@pytest.fixture(scope="module")
def machine(package, tmp_path_factory):
    """A machine on which the package was installed."""
    program("python3")
    made = BootedMachine(tmp_path_factory.mktemp("machine"))
    try:
        made.install(package)
        yield made
    finally:
        made.close()


@pytest.fixture
def service(machine):
    """The service, which runs with the plain configuration."""
    made = Service(machine)
    made.reset()
    return made


def test_the_service_reports_that_it_listens(service):
    assert service.show("StatusText") == "Listening on http://127.0.0.1:5000"
    assert service.systemctl("is-enabled", UNIT) == "enabled\n"
    assert service.ask() == 200
    main, serving = service.pids()
    for pid in (main, serving):
        assert service.machine.stat(f"/proc/{pid}").startswith(f"{UNIT}:{UNIT} ")
    lines = service.journal()
    assert "listening on http://127.0.0.1:5000" in lines
    assert "\x1b" not in lines
    assert not [line for line in lines.splitlines() if line.startswith("<")]
    assert "Started " not in service.journal("--priority=warning")


def test_the_watchdog_is_served_and_ends_a_process_that_hangs(service):
    service.edit("WatchdogSec=6")
    service.systemctl("restart", UNIT)
    first = service.show("WatchdogTimestampMonotonic")
    wait_until(lambda: service.show("WatchdogTimestampMonotonic") not in {first, "0"})
    assert service.show("NRestarts") == "0"
    _, serving = service.pids()
    service.machine.run("kill", "-STOP", serving)
    wait_until(lambda: service.is_restarted(1))
    assert "Watchdog timeout" in service.journal()
    assert service.ask() == 200


def test_a_process_that_is_killed_is_replaced(service):
    main, _ = service.pids()
    service.machine.run("kill", "-KILL", main)
    wait_until(lambda: service.is_restarted(1))
    _, serving = service.pids()
    service.machine.run("kill", "-KILL", serving)
    wait_until(lambda: service.is_restarted(2))
    assert service.ask() == 200


def test_a_reload_applies_a_configuration_or_says_what_is_wrong_with_it(service):
    service.configure(WITH_USERS)
    users = f"{ETC}/users"
    add = ("twisted-registry", "user", "add", "ada", "--htpasswd", users)
    service.machine.run("sh", "-c", 'umask 077; exec "$@"', "sh", *add, text="secret\n")
    assert service.machine.stat(users) == f"root:{UNIT} 640"
    service.systemctl("reload", UNIT)
    wait_until(lambda: service.ask() == 401)
    service.machine.run("chmod", "0600", users)
    service.systemctl("reload", UNIT)
    wait_until(lambda: service.show("StatusText").startswith("The last reload has failed: "))
    advice = service.show("StatusText").partition("to permit it, as root: ")[2]
    service.configure(WITH_USERS.replace("audit:", "level: loud, audit:"))
    service.systemctl("reload", UNIT)
    wait_until(lambda: "log.level: got 'loud'" in service.show("StatusText"))
    assert (service.show("ActiveState"), service.ask()) == ("active", 401)
    errors = service.journal("--priority=err").splitlines()
    assert ["reload has failed" in line for line in errors] == [True, True]
    service.configure(WITH_USERS)
    service.machine.run("sh", "-c", advice)
    service.systemctl("reload", UNIT)
    wait_until(lambda: service.show("StatusText").startswith("Listening on "))


def test_a_stop_waits_for_a_push(service):
    with subprocess.Popen(
        service.machine.command("python3", "-c", PUSH),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as push:  # fmt: skip
        assert push.stdout.readline() == "half\n"
        service.systemctl("stop", "--no-block", UNIT)
        wait_until(lambda: service.show("ActiveState") == "deactivating")
        wait_until(lambda: service.show("StatusText").startswith("Stopping: "))
        assert push.communicate("go\n")[0] == "201\n"
    wait_until(lambda: service.show("ActiveState") == "inactive")
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    assert "level=fatal" not in service.journal()


def test_a_second_signal_cuts_a_push(service):
    with subprocess.Popen(
        service.machine.command("python3", "-c", PUSH),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as push:  # fmt: skip
        assert push.stdout.readline() == "half\n"
        service.systemctl("stop", "--no-block", UNIT)
        wait_until(lambda: "no new connections are accepted" in service.journal())
        service.machine.run("sleep", "0.6")
        service.systemctl("kill", UNIT)
        wait_until(lambda: service.show("ActiveState") == "inactive")
        assert "201" not in push.communicate("go\n")[0]
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "143")


def test_a_service_that_cannot_start_starts_when_the_cause_is_gone(service):
    service.configure(WITH_USERS)
    service.machine.run("sh", "-c", f"umask 077; echo ada:x >{ETC}/users")
    service.systemctl("stop", UNIT)
    service.systemctl("start", "--no-block", UNIT)
    wait_until(lambda: "Permission denied for the user twisted-registry" in service.journal())
    wait_until(lambda: int(service.show("NRestarts")) >= 1)
    service.machine.run("chmod", "0640", f"{ETC}/users")
    wait_until(lambda: service.show("ActiveState") == "active")
    assert service.ask() == 401


def test_doctor_sees_what_the_user_of_the_service_sees(service):
    # The file system of the copy is a warning.
    document = json.loads(service.machine.run("twisted-registry", "doctor", "--json"))
    assert (document["user"], document["problems"]) == (UNIT, 0)
    assert "unit" in document["checks"]
    service.configure(CONFIGURATION.replace("/var/lib/twisted-registry", "/srv/registry"))
    service.machine.run("install", "-d", "-o", UNIT, "/srv/registry")
    done = subprocess.run(
        service.machine.command("twisted-registry", "doctor", "--json"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    findings = json.loads(done.stdout)["findings"]
    (problem,) = (each["problem"] for each in findings if each["level"] == "problem")
    assert problem == "the service may not write /srv/registry"
    service.edit("ReadWritePaths=/srv/registry")
    service.systemctl("restart", UNIT)
    assert "0 problems" in service.machine.run("twisted-registry", "doctor")
    assert service.ask() == 200


def test_a_low_port_with_several_processes(service):
    service.configure(CONFIGURATION.replace("5000'", "443', workers: 2"))
    capability = "CAP_NET_BIND_SERVICE"
    service.edit(f"CapabilityBoundingSet={capability}", f"AmbientCapabilities={capability}")
    service.systemctl("restart", UNIT)
    assert service.show("StatusText") == "Listening on http://127.0.0.1:443 with 2 processes"
    assert service.ask(443) == 200
    assert "0 problems" in service.machine.run("twisted-registry", "doctor")


def test_a_socket_keeps_connections_during_a_restart(service):
    service.systemctl("stop", UNIT)
    service.systemctl("start", f"{UNIT}.socket")
    try:
        assert service.ask() == 200
        with subprocess.Popen(
            service.machine.command("systemctl", "restart", UNIT), stdout=subprocess.DEVNULL
        ) as restart:
            while restart.poll() is None:
                assert service.ask() == 200
        assert restart.returncode == 0
    finally:
        service.systemctl("stop", f"{UNIT}.socket")


def test_the_audit_log_is_rotated(service):
    if not (service.machine.root / "usr/sbin/logrotate").exists():
        pytest.skip("logrotate is not installed")
    log = "/var/log/twisted-registry/audit.log"
    service.configure(WITH_USERS)
    service.machine.run("sh", "-c", f"umask 027; echo ada:x >{ETC}/users")
    service.systemctl("restart", UNIT)
    assert service.machine.run("wc", "-l", log).split()[0] != "0"
    service.machine.run("logrotate", "--force", f"/etc/logrotate.d/{UNIT}")
    service.systemctl("reload", UNIT)
    wait_until((service.machine.root / log[1:]).exists)
    assert service.machine.stat(log) == f"{UNIT}:{UNIT} 640"


def test_an_upgrade_restarts_the_service_and_a_removal_stops_it(service, package):
    before = service.show("MainPID")
    service.machine.install(package)
    assert service.show("ActiveState") == "active"
    assert service.show("MainPID") != before
    assert service.ask() == 200
    try:
        service.machine.dpkg("--purge", UNIT)
        assert service.show("ActiveState") == "inactive"
        assert service.show("LoadState") == "not-found"
        assert service.machine.run("ls", "/var/lib/twisted-registry") != ""
    finally:
        service.machine.install(package)
    assert service.ask() == 200
