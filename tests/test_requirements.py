"""``requirements/``: what a release installs, and the oldest packages that are claimed to work."""

from __future__ import annotations

import re
from importlib.metadata import requires
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
