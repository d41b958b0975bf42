"""Registries in containers of podman, and what is asked of a registry in any container."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from tests.integration.remote import Remote
from tests.integration.servers import answers, program
from tests.support.processes import wait_until

INSECURE = ("--src-tls-verify=false", "--dest-tls-verify=false")
#: The number of the user and of the group in the images.
UID = 65532


@contextmanager
def run_podman(sandbox, image, *arguments, address, options=()):
    """Run a registry in a container that is called ``registry``.

    It has the network of the machine, the limits of this process, no capabilities and a read-only
    root. runc works with every version of cgroups, and podman's own runtime does not.

    :param image: its name in the sandbox.
    :param arguments: the command line in the container; the one of the image if there are none.
    :param address: HOST:PORT where it answers.
    :param options: further options of ``podman run``.
    """
    podman = ("podman", f"--runtime={program('runc')}", "--cgroup-manager=cgroupfs")
    sandbox.run(
        *podman, "run", "--detach", "--name=registry", "--pull=never", "--network=host",
        "--ulimit=host", "--read-only", "--cap-drop=all", *options, image, *arguments,
    )  # fmt: skip
    try:
        wait_until(lambda: is_up(sandbox, podman, address))
        yield lambda *command: sandbox.run(*podman, *command)
    finally:
        sandbox.run(*podman, "rm", "--force", "--time=20", "registry")


def is_up(sandbox, podman, address):
    """Whether the registry answers; fails with its log if its container has ended."""
    state = sandbox.run(*podman, "inspect", "--format={{.State.Status}}", "registry").strip()
    if state == "exited":
        log = sandbox.attempt(*podman, "logs", "registry")
        raise AssertionError(f"the container has ended:\n{log.stdout}{log.stderr}")
    return answers(address)


def push_and_pull(sandbox, address, source):
    """Push an image with skopeo, and pull it."""
    target = f"docker://{address}/app:1"
    sandbox.run("skopeo", "copy", *INSECURE, source, target)
    Remote(address).assert_complete("app", "1")
    sandbox.run("skopeo", "copy", *INSECURE, target, f"dir:{sandbox.home}/pulled")


def users_of(pid):
    """Return the numbers of the user and of the group of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return {int(number) for name in ("Uid", "Gid") for number in lines[name].split()}
