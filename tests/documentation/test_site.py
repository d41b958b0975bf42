"""The documentation: links between its files, and the site that ``make docs`` builds."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import twisted_registry
import twisted_registry.testing

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst")]
#: The attributes of HTML elements that a browser loads.
LOADED = {
    **dict.fromkeys(("audio", "embed", "iframe", "img", "script", "source", "video"), "src"),
    "link": "href",
    "object": "data",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"<([^<>\s`]+)>`_|^\.\. image:: (\S+)", text, re.MULTILINE)
    local = [link or image for link, image in targets if not urlsplit(link or image).scheme]
    assert not [target for target in local if not (page.parent / target).is_file()]


class Page(HTMLParser):
    """What a page of the site loads, where its links lead, and the ids of its elements."""

    def __init__(self, path):
        super().__init__()
        self.loaded, self.links, self.ids = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        self.loaded += [found[name] for name in (LOADED.get(tag), "srcset") if found.get(name)]
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the site by their paths."""
    if importlib.util.find_spec("sphinx") is None:
        reason = "no Sphinx: run make docs, which installs it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = tmp_path_factory.mktemp("site")
    # The environment of the tests is used as it is.
    installed = f"{sys.prefix}/.installed-docs"
    built = subprocess.run(
        ["make", "docs", f"VENV={sys.prefix}", f"--old-file={installed}", f"SITE={folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return {path: Page(path) for path in folder.rglob("*.html")}


@pytest.mark.integration
def test_the_site_has_a_page_for_each_file(site):
    names = {path.stem for path in site}
    assert names >= {path.stem for path in (ROOT / "docs").glob("*.rst")}
    assert names >= {"index", "contributing", "security", "changelog", "search", "genindex"}


@pytest.mark.integration
def test_the_site_loads_nothing_from_elsewhere(site):
    loaded = {target for page in site.values() for target in page.loaded}
    assert len(loaded) > 5
    assert not {target for target in loaded if urlsplit(target).netloc}
    (folder,) = {path.parent for path in site}
    styles = [path.read_text(encoding="utf-8") for path in folder.rglob("*.css")]
    imported = re.findall(r"url\(\s*[\"']?([^)]+)|@import\s+[\"']([^\"']+)", "".join(styles))
    assert not [target for each in imported for target in each if urlsplit(target).netloc]


@pytest.mark.integration
def test_the_links_of_the_site_resolve(site):
    broken = []
    for path, page in site.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            if not file.is_file() or (target.fragment and target.fragment not in site[file].ids):
                broken.append((path.name, link))
    assert not broken


@pytest.mark.integration
@pytest.mark.parametrize("module", [twisted_registry, twisted_registry.testing])
def test_every_public_name_is_in_the_reference(site, module):
    described = set().union(*(page.ids for page in site.values()))
    missing = []
    for name in module.__all__:
        value = getattr(module, name)
        inside = getattr(value, "__module__", module.__name__)
        if not described & {f"{module.__name__}.{name}", f"{inside}.{name}"}:
            missing.append(name)
    assert not missing
