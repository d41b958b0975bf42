"""What the drawings and samples of the documentation show is there."""

from __future__ import annotations

import re

import yaml

from tests.documentation.pages import ROOT, blocks_in, each_block
from twisted_registry.testing import Registry, build_image

PACKAGE = ROOT / "twisted_registry"


def assert_folders_and_interfaces_exist(text, _tmp_path):
    folders = {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert set(re.findall(r"(?<!/)\b([a-z]\w+)/", text)) <= folders
    shown = set(re.findall(r"\bI[A-Z]\w+", text))
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert shown <= set(re.findall(r"\bI\w+", code))


def assert_files_are_stored(text, tmp_path):
    with Registry(storage=tmp_path) as registry:
        registry.push_image("app:1", build_image(files={"a": "1"}))
    paths = re.findall(r"^<rootdirectory>/(\S+)", text, re.MULTILINE)
    assert paths
    assert not [path for path in paths if not (tmp_path / path).exists()]


def assert_prometheus_asks_the_debug_address(text, _tmp_path):
    (job,) = yaml.safe_load(text)["scrape_configs"]
    (block,) = [block for block in blocks_in("yaml") if block.page == "docs/metrics.rst"]
    debug = yaml.safe_load(block.text)["http"]["debug"]
    assert job["static_configs"] == [{"targets": [debug["addr"]]}]
    assert debug["prometheus"]["path"] == "/metrics"  # which Prometheus asks for by itself
    rules = (ROOT / "conf/prometheus/alerts.yml").read_text(encoding="utf-8")
    assert f'job="{job["job_name"]}"' in rules


#: The test of a drawing, by its page.
DRAWINGS = {
    "docs/design.rst": assert_folders_and_interfaces_exist,
    "docs/metrics.rst": assert_prometheus_asks_the_debug_address,
    "docs/operations.rst": assert_files_are_stored,
}


@each_block(blocks_in("text"))
def test_what_a_drawing_shows_exists(block, tmp_path):
    assert block.page in DRAWINGS, f"{block.place}: enter a test of this drawing in DRAWINGS"
    DRAWINGS[block.page](block.text, tmp_path)


def test_every_test_has_a_drawing():
    assert DRAWINGS.keys() == {block.page for block in blocks_in("text")}
