"""``requirements/``: what a release installs, and the oldest packages that are claimed to work."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PINNED = sorted((ROOT / "requirements").glob("*.txt"))
#: Extras of the development; the other extras are part of a release.
TOOLS = ('"test"', '"dev"')
_PIN = re.compile(
    r"^(\S+)==(\S+)(?: ; [^\\]*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)


def pins(path):
    """Return the pinned version of each package of a file."""
    return {canonicalize_name(name): version for name, version, _ in _PIN.findall(path.read_text())}


def claimed():
    """Return what the package requires, extras of a release included."""
    found = [Requirement(each) for each in requires("twisted-registry")]
    return [each for each in found if not str(each.marker).endswith(TOOLS)]


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_every_package_is_pinned_with_hashes(path):
    lines = [line for line in path.read_text().splitlines() if re.match(r"[^\s#]", line)]
    assert len(lines) == len(_PIN.findall(path.read_text())) > 10


def test_a_release_installs_what_is_required():
    pinned = pins(ROOT / "requirements/release.txt")
    for requirement in claimed():
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_oldest_claimed_packages_are_those_that_are_tested():
    pinned = pins(ROOT / "requirements/oldest.txt")
    for requirement in claimed():
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        tested = pinned[canonicalize_name(requirement.name)]
        assert tested == bound.version or tested.startswith(f"{bound.version}."), requirement


def base_install():
    """Return the names of the distributions that an installation without extras has."""
    wanted, found = ["twisted-registry"], set()
    while wanted:
        name = wanted.pop()
        required, _, extras = name.partition("[")
        if name not in found:
            found.add(name)
            for each in map(Requirement, requires(required) or ()):
                chosen = [*extras.rstrip("]").split(","), ""]
                if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in chosen):
                    more = f"[{','.join(sorted(each.extras))}]" if each.extras else ""
                    wanted.append(canonicalize_name(each.name) + more)
    return {name.partition("[")[0] for name in found}


PASSWORDS = """
import sys, urllib.error, urllib.request
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # they cannot be imported
from twisted_registry.testing import Registry

with Registry(auth=("ada", "secret"), tls=True) as registry:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, registry.url, "ada", "secret")
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=registry.ssl_context),
        urllib.request.HTTPBasicAuthHandler(passwords),
    )
    print(opener.open(f"{registry.url}/v2/").read())
"""


def test_an_installation_without_extras_serves_passwords_and_tls(tmp_path):
    base = base_install()
    absent = [
        module
        for module, distributions in packages_distributions().items()
        if not base & set(map(canonicalize_name, distributions))
    ]
    assert {"jwt", "acme", "botocore", "opentelemetry", "prometheus_client"} <= set(absent)
    done = subprocess.run(
        [sys.executable, "-c", PASSWORDS, *absent],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "b'{}'\n"), done.stderr
