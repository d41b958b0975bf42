"""Copies of this machine that are kept in memory, to install packages on and to boot.

A copy is an overlay on ``/``, seen by the processes of one mount namespace only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.integration.servers import missing, program
from tests.support.processes import ROOT, run, wait_until

#: Makes a copy of this machine in the folder ``$1``, and keeps it until the standard input ends.
_COPY = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
{mounts}
echo ready
exec cat
"""
#: What programs need that run in a changed root directory.
_FOR_CHROOT = """
for each in proc dev; do mount --rbind "/$each" "$1/root/$each"; done
mount -t tmpfs tmpfs "$1/root/tmp"
"""
_EPOCH = "1769817600"
#: What a copy that is booted gets; nothing of this machine's own.
_ENVIRONMENT = (
    *("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    *("LANG=C.UTF-8", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="),
)


def build_package(binary, folder, **environ):
    """Build the Debian package of the program that is one file; return its path."""
    python = ROOT / ".venv-binary/bin/python"
    variables = {"DEBFULLNAME": "Ada", "DEBEMAIL": "ada@lovelace.org", "SOURCE_DATE_EPOCH": _EPOCH}
    status, out, errors = run(
        str(ROOT / ".ci/deb/build"), str(binary), str(python), str(folder), cwd=folder,
        **variables, **environ,
    )  # fmt: skip
    assert status == 0, errors
    (made,) = folder.glob("*.deb")
    assert out == f"{made}\n"
    return made


class Machine:
    """A copy of this machine, in which programs run in a changed root directory.

    :ivar root: its root directory.
    """

    mounts = _FOR_CHROOT

    def __init__(self, folder):
        if os.geteuid() != 0:
            missing("only root can make a namespace")
        self._keeper = subprocess.Popen(
            (
                *(program("unshare"), "--mount", "sh", "-e", "-c"),
                *(_COPY.format(mounts=self.mounts), "sh", str(folder)),
            ),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._keeper.stdout.readline() == "ready\n"
        self._folder = folder / "root"
        self._enter_mounts = (program("nsenter"), f"--target={self._keeper.pid}", "--mount")
        self._enter = (*self._enter_mounts, program("chroot"), str(self._folder))
        self.root = Path(f"/proc/{self._keeper.pid}/root{self._folder}")

    def command(self, *words):
        """Return a command that runs another one there."""
        return (*self._enter, *words)

    def run(self, *words, text=None):
        """Run a command there that must succeed; return what it prints."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, cwd="/", input=text
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def dpkg(self, *words):
        """Run dpkg without triggers, which rebuild the indexes of other packages."""
        return self.run("dpkg", "--force-unsafe-io", "--no-triggers", *words)

    def install(self, package):
        """Install the package, without questions."""
        shutil.copy(package, self.root / "package.deb")
        self.dpkg("--force-confold", "--install", "/package.deb")

    def stat(self, path):
        """Return owner, group and mode of a path, as ``root:root 755``."""
        return self.run("stat", "--format=%U:%G %a", path).strip()

    def close(self):
        """Forget the copy."""
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()


class BootedMachine(Machine):
    """A copy of this machine that systemd has booted, as process 1 of its own namespaces.

    It has no network but the loopback interface, and starts no service of this machine.
    """

    mounts = ""

    def __init__(self, folder):
        nspawn = program("systemd-nspawn")
        super().__init__(folder)
        # It would keep packages from starting their services.
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        (self.root / "etc/machine-id").write_text("")
        unit = () if Path("/run/systemd/system").is_dir() else ("--keep-unit",)
        # The end of the outer process ends all that run there.
        self._nspawn = subprocess.Popen(
            (
                *self._enter_mounts,
                *(program("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"),
                *(nspawn, "--quiet", "--register=no", *unit, "--private-network"),
                *(f"--directory={self._folder}", "--machine=copy", "--console=read-only"),
                *("--boot", "--", "--unit=sysinit.target"),
            ),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )  # fmt: skip
        try:
            wait_until(self._find_init)
            wait_until(self._is_booted)
        except BaseException:
            self._nspawn.kill()
            print(self._nspawn.communicate()[0])
            super().close()
            raise

    def close(self):
        """End all processes of the copy, and forget it."""
        self._nspawn.kill()
        self._nspawn.communicate()
        super().close()

    def _find_init(self):
        """Find the third generation: unshare, systemd-nspawn, systemd."""
        assert self._nspawn.poll() is None, self._nspawn.stdout.read()
        pids = [self._nspawn.pid]
        for _ in range(2):
            pids = [child for pid in pids for child in children(pid)]
        found = [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "systemd\n"]
        if found:
            namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
            self._enter = (
                *(program("nsenter"), f"--target={found[0]}", *namespaces, "--root", "--wd=/"),
                *_ENVIRONMENT,
            )
        return bool(found)

    def _is_booted(self):
        command = self.command("systemctl", "is-active", "--quiet", "sysinit.target")
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def children(pid):
    """Return the ids of the processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]
