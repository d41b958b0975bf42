"""The Debian package: what is in it, and what it does to a copy of this machine."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.machines import Machine, build_package
from tests.integration.servers import missing, program
from tests.support.processes import ROOT, RegistryProcess, run
from twisted_registry import __version__

pytestmark = pytest.mark.integration

ETC, DATA = "/etc/twisted-registry", "/var/lib/twisted-registry"
UNIT = "/usr/lib/systemd/system/twisted-registry.service"

#: In place of the programs that ask a running systemd: it writes their command lines to a file.
RECORD = """\
#!/bin/sh
case "$*" in
    daemon-reload | "start "* | "stop "* | "restart "*) echo "${0##*/} $*" >>/calls ;;
    *) exec /usr/bin/systemctl "$@" ;;
esac
"""


@pytest.fixture
def machine(package, tmp_path):
    """A copy of this machine, on which no package and no service has our names."""
    made = Machine(tmp_path)
    yield made
    made.close()


def contents(package):
    """Return the files of a package with their modes and owners, by their paths."""
    listed = subprocess.run(
        ("dpkg-deb", "--contents", str(package)), capture_output=True, text=True, check=True
    ).stdout
    return {words[5][1:]: (words[0], words[1]) for words in map(str.split, listed.splitlines())}


def test_every_file_is_where_debian_expects_it(package):
    files = contents(package)
    assert {owner for _, owner in files.values()} == {"root/root"}
    assert files["/usr/bin/twisted-registry"][0] == "-rwxr-xr-x"
    expected = {
        *(f"{ETC}/config.yml", f"{DATA}/", UNIT, UNIT.replace(".service", ".socket")),
        "/usr/lib/sysusers.d/twisted-registry.conf",
        "/usr/share/bash-completion/completions/twisted-registry",
        "/usr/share/doc/twisted-registry/changelog.Debian.gz",
        "/usr/share/doc/twisted-registry/copyright",
        "/usr/share/doc/twisted-registry/docs/metrics.rst",
        "/usr/share/doc/twisted-registry/docs/operations.rst",
        "/usr/share/fish/vendor_completions.d/twisted-registry.fish",
        "/usr/share/man/man1/twisted-registry.1.gz",
        "/usr/share/zsh/vendor-completions/_twisted-registry",
    }
    # Configurations, alert rules, the dashboard: all that the wheel has, but for what is installed.
    doc = Path("/usr/share/doc/twisted-registry")
    shipped = [path for path in ROOT.glob("conf/**/*.*") if path.suffix in {".json", ".yml"}]
    expected |= {str(doc / path.relative_to(ROOT)) for path in shipped}
    assert str(doc / "conf/prometheus/alerts.yml") in expected
    assert expected <= set(files)
    assert {mode for mode, _ in (files[each] for each in expected)} == {"-rw-r--r--", "drwxr-xr-x"}


def test_the_documents_of_the_package_have_no_links_to_missing_files(package, tmp_path):
    subprocess.run(("dpkg-deb", "--extract", package, tmp_path), check=True)
    pages = sorted((tmp_path / "usr/share/doc/twisted-registry").rglob("*.rst"))
    links = [
        (page.name, link)
        for page in pages
        for link in re.findall(r"<([^<>\s#]+)[^<>\s]*>`_", page.read_text())
        if "://" not in link
    ]
    assert ("operations.rst", "access.rst") in links
    folders = {page.name: page.parent for page in pages}
    assert [each for each in links if not (folders[each[0]] / each[1]).exists()] == []


def test_the_package_tells_version_libraries_and_configuration(package, tmp_path):
    subprocess.run(("dpkg-deb", "--control", package, tmp_path / "control"), check=True)
    fields = dict(
        line.split(": ", 1)
        for line in (tmp_path / "control/control").read_text().splitlines()
        if not line.startswith(" ")
    )
    assert fields["Version"] == f"{__version__}-1"
    assert fields["Maintainer"] == "Ada <ada@lovelace.org>"
    libc = subprocess.run(
        ("getconf", "GNU_LIBC_VERSION"), capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert fields["Depends"].startswith(f"libc6 (>= {libc}), ")
    conffiles = f"/etc/logrotate.d/twisted-registry\n{ETC}/config.yml\n"
    assert (tmp_path / "control/conffiles").read_text() == conffiles
    assert package.name.startswith(f"twisted-registry_{__version__}-1_")


def test_the_licences_of_what_is_in_the_executable_are_in_the_package(package, tmp_path):
    subprocess.run(("dpkg-deb", "--extract", package, tmp_path), check=True)
    text = (tmp_path / "usr/share/doc/twisted-registry/copyright").read_text()
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in text
    for name in ("twisted", "attrs", "cryptography", "pyyaml", "bcrypt", "pyinstaller"):
        assert f"\n{name} " in text
    assert "None" not in text.splitlines()


def test_the_same_sources_give_the_same_package(package, binary, tmp_path):
    again = build_package(binary, tmp_path)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (package, again)]
    assert digests[0] == digests[1]


def test_an_executable_of_another_version_is_refused(tmp_path):
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho twisted-registry 0.0.9\n")
    other.chmod(0o755)
    python = ROOT / ".venv-binary/bin/python"
    if not python.exists():
        missing("make binary was not run")
    status, out, errors = run(
        str(ROOT / ".ci/deb/build"), str(other), str(python), ".", cwd=tmp_path
    )
    assert (status, out) == (1, "")
    assert errors == [f"{other} is not twisted-registry {__version__}"]


def test_lintian_finds_neither_errors_nor_warnings(package):
    command = (program("lintian"), "--allow-root", "--fail-on", "error,warning", str(package))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_an_installed_registry_serves_what_the_package_configures(machine, package, tmp_path):
    machine.install(package)
    assert machine.run("dpkg", "--verify", "twisted-registry") == ""
    assert machine.stat(ETC) == "root:twisted-registry 2750"
    assert machine.stat(DATA) == "twisted-registry:twisted-registry 750"
    assert "not start" not in machine.run("systemd-analyze", "verify", "--man=no", UNIT)
    # Without FILE, a command reads the configuration of the package.
    assert f"rootdirectory: {DATA}" in machine.run("twisted-registry", "check")
    machine.run("sh", "-c", "echo secret | twisted-registry user add ada --htpasswd $0/users", ETC)
    assert machine.stat(f"{ETC}/users") == "root:twisted-registry 640"

    (start,) = (
        line.partition("=")[2]
        for line in (machine.root / UNIT[1:]).read_text().splitlines()
        if line.startswith("ExecStart=")
    )
    command = machine.command(
        "setpriv", "--reuid=twisted-registry", "--regid=twisted-registry", "--clear-groups",
        *("sh", "-c", f"cat {ETC}/users && cd {DATA} && exec {start}"),
    )  # fmt: skip
    with RegistryProcess(*command, cwd=tmp_path, REGISTRY_HTTP_ADDR="127.0.0.1:0") as server:
        response, _ = server.ask("POST", "/v2/a/blobs/uploads/", b"")
        assert response.status == 202
        status, _, lines = server.stop()
    assert status == 0
    assert any(f"configuration: {ETC}/config.yml" in line for line in lines)
    assert machine.stat(f"{DATA}/docker").startswith("twisted-registry:twisted-registry ")
    # Nothing of this has happened on this machine.
    assert not os.path.lexists(UNIT)


def test_the_life_of_an_installation(machine, package):
    for name in ("systemctl", "deb-systemd-invoke"):
        (machine.root / "usr/local/sbin" / name).write_text(RECORD)
        (machine.root / "usr/local/sbin" / name).chmod(0o755)
    (machine.root / "run/systemd/system").mkdir(parents=True, exist_ok=True)

    def calls():
        path = machine.root / "calls"
        text = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        return text.replace(".service", "").splitlines()

    enabled = machine.root / "etc/systemd/system/multi-user.target.wants/twisted-registry.service"
    machine.install(package)
    assert calls() == [
        "systemctl daemon-reload",
        "deb-systemd-invoke start twisted-registry",
    ]
    assert enabled.is_symlink()

    # An upgrade keeps what the administrator has changed.
    config = machine.root / f"{ETC[1:]}/config.yml"
    config.write_text(changed := config.read_text().replace("30s", "5s"))
    machine.run("chmod", "0700", ETC)
    enabled.unlink()
    machine.install(package)
    assert calls() == [
        "systemctl daemon-reload",
        "deb-systemd-invoke restart twisted-registry",
    ]
    assert config.read_text() == changed
    assert machine.stat(ETC) == "root:twisted-registry 2700"
    assert not enabled.is_symlink()

    users, blob = machine.root / f"{ETC[1:]}/users", machine.root / f"{DATA[1:]}/blob"
    users.write_text("ada:x\n")
    blob.write_text("data")
    machine.dpkg("--remove", "twisted-registry")
    assert calls() == [
        "deb-systemd-invoke stop twisted-registry.socket twisted-registry",
        "systemctl daemon-reload",
    ]
    assert config.exists()
    assert not (machine.root / UNIT[1:]).exists()

    machine.dpkg("--purge", "twisted-registry")
    assert not config.exists()
    assert (users.read_text(), blob.read_text()) == ("ada:x\n", "data")
    assert machine.run("id", "--name", "--user", "twisted-registry") == "twisted-registry\n"
