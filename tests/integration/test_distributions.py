"""The wheel and the source distribution of ``make wheel``: their files, and what they say."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from email import message_from_bytes

import pytest

from tests.integration.servers import missing, program
from tests.support.processes import ROOT
from twisted_registry import __version__

pytestmark = pytest.mark.integration

NAME = f"twisted_registry-{__version__}"


@pytest.fixture(scope="module", autouse=True)
def built():
    """Both were built from the sources as they are."""
    question = (program("make"), "--question", "--directory", str(ROOT), "wheel")
    if subprocess.run(question, capture_output=True, check=False).returncode != 0:
        missing("wheel or source distribution is missing or older: run make wheel")


def in_repository(*paths):
    """Return the files of the repository below some paths."""
    command = (program("git"), "ls-files", "-z", "--", *paths)
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stdout.split("\0")) - {""}


def test_the_source_distribution_has_the_whole_repository():
    with tarfile.open(ROOT / f"dist/{NAME}.tar.gz") as archive:
        names = {each.name.removeprefix(f"{NAME}/") for each in archive if each.isfile()}
    more = names - in_repository()
    assert in_repository() - names == {".gitignore"}
    assert {name.partition("/")[0] for name in more} == {
        *("PKG-INFO", "setup.cfg", "twisted_registry.egg-info"),
    }


def test_the_wheel_has_the_package_the_plugin_and_the_licence():
    with zipfile.ZipFile(ROOT / f"dist/{NAME}-py3-none-any.whl") as archive:
        names = set(archive.namelist())
        metadata = message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))
    information = {name for name in names if name.startswith(f"{NAME}.dist-info/")}
    shared = f"{NAME}.data/data/share/doc/twisted-registry/"
    assert {name for name in names if name.startswith(shared)} == {
        f"{shared}{path}"
        for path in in_repository("conf", "*.rst", "docs/openapi.yaml", "compose.yml")
        if not path.startswith("tests/")
    }
    code = {name for name in names - information if not name.startswith(shared)}
    assert code == in_repository("twisted_registry", "twisted")
    assert f"{NAME}.dist-info/licenses/LICENSE" in information
    assert f"{NAME}.dist-info/entry_points.txt" in information
    assert metadata["Version"] == __version__
    assert metadata["License"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/x-rst"
    assert {"acme", "aws", "metrics", "redis"} <= set(metadata.get_all("Provides-Extra"))
