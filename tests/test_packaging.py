"""An installation: the twistd plugin, two commands, and no ``twisted`` package.

The folder of the plugin must not contain an ``__init__.py``, which would hide Twisted's own
package. The default editable mode of setuptools hides the plugin from twistd; ``make`` uses the
mode ``compat``, which does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.documentation.pages import blocks_in

HERE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources, so that a build leaves no files in the working tree."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("twisted_registry", "twisted"):
        shutil.copytree(
            HERE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.cache")
        )
    for pattern in ("setup.py", "pyproject.toml", "README.rst", "LICENSE", "MANIFEST.in"):
        for path in HERE.glob(pattern):
            shutil.copy(path, copy)
    return copy


@pytest.fixture
def environment(tmp_path):
    """The bin folder of a virtual environment with the dependencies, but without the registry."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True, symlinks=True)
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        # Otherwise the working tree is found instead of the installation.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plugins(python: Path, cwd: Path) -> list[str]:
    """The commands that twistd lists."""
    script = "from twisted.scripts.twistd import run; run()"
    shown = run(python, "-c", script, "--help", cwd=cwd)
    return [line.split()[0] for line in shown.splitlines() if line.startswith("    ")]


def package_path(python: Path, cwd: Path) -> Path:
    """The path of the package that an interpreter imports."""
    script = "import twisted_registry; print(twisted_registry.__file__)"
    return Path(run(python, "-c", script, cwd=cwd).strip())


def test_twisted_is_not_hidden():
    assert (HERE / "twisted" / "plugins").is_dir()
    assert not list((HERE / "twisted").rglob("__init__.py"))


@pytest.mark.integration
def test_a_wheel_has_plugin_and_commands(source, environment, tmp_path):
    python = environment / "python"
    wheels = tmp_path / "wheels"
    run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", wheels, source, cwd=tmp_path)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "twisted/plugins/twisted_registry_plugin.py" in names
    assert [name for name in names if name.startswith("twisted/")] == [
        "twisted/plugins/twisted_registry_plugin.py"
    ]
    assert not [name for name in names if name.startswith(("tests", "conf", "docs"))]
    assert "twisted_registry/py.typed" in names

    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert package_path(python, tmp_path).is_relative_to(environment.parent)
    assert "registry" in plugins(python, tmp_path)
    for command in ("twisted-registry", "registry"):
        assert "serve" in run(environment / command, "--help", cwd=tmp_path)

    # The sample of the README: pytest finds the plugin by its entry point.
    folder = tmp_path / "project"
    folder.mkdir()
    (sample,) = (block for block in blocks_in("python") if block.file == "test_pull.py")
    (folder / sample.file).write_text(sample.text)
    out = run(python, "-m", "pytest", "-p", "no:cacheprovider", cwd=folder)
    assert "1 passed" in out
    assert "oci-registry" in run(python, "-m", "pytest", "--help", cwd=folder)


@pytest.mark.integration
def test_an_editable_install_has_the_plugin(source, environment, tmp_path):
    python = environment / "python"
    run(
        python, "-m", "pip", "install", "--no-deps",
        "--config-settings", "editable_mode=compat", "--editable", source, cwd=tmp_path,
    )  # fmt: skip
    assert package_path(python, tmp_path).is_relative_to(source)
    assert "registry" in plugins(python, tmp_path)
    # Listing the plugins does not import the registry.
    script = (
        "import sys; from twisted.plugin import getPlugins; "
        "from twisted.application.service import IServiceMaker; "
        "names = [each.tapname for each in getPlugins(IServiceMaker)]; "
        "assert 'registry' in names; "
        "print(*(name for name in sys.modules if name.startswith('twisted_registry')))"
    )
    assert run(python, "-c", script, cwd=tmp_path).strip() == ""
