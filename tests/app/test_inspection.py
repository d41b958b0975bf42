"""Stacks and profiles of all processes, at the debug address."""

from __future__ import annotations

import os
import re
import signal
from contextlib import closing
from http.client import HTTPConnection
from xml.etree import ElementTree as ET

import pytest

from tests.support.processes import CONFIGURATION, SERVE, write_configuration
from tests.workers.process_group import Family, ask

TWO_PROCESSES = """\
  workers: 2
  debug: {{addr: '127.0.0.1:0'}}
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspection")
    path = write_configuration(folder, CONFIGURATION + TWO_PROCESSES)
    with Family(*SERVE, path, cwd=folder) as family:
        family.one_for_each()
        yield family
        family.stop()


def ask_debug(family, path, method="GET"):
    """Send a request to the debug address; return the response and its body."""
    pattern = r"maintenance: http://127\.0\.0\.1:(\d+)"
    (port,) = {found[1] for line in family.lines if (found := re.search(pattern, line))}
    with closing(HTTPConnection("127.0.0.1", int(port), timeout=60)) as connection:
        return ask(connection, method, path)


def processes(family):
    return {family.process.pid, *family.others}


def test_stacks_of_all_processes(family):
    response, body = ask_debug(family, "/debug/stacks")
    assert response.status == 200
    found = re.findall(rb"^process (\d+)\nthreads: ", body, re.MULTILINE)
    assert {int(pid) for pid in found} == processes(family)
    assert body.count(b"thread MainThread\n") == 2


def test_a_profile_of_all_processes_as_text_and_as_a_picture(family):
    response, body = ask_debug(family, "/debug/profile?seconds=1&format=text")
    assert (response.status, response.getheader("Content-Type")) == (
        200,
        "text/plain; charset=utf-8",
    )
    found = re.findall(r"^process (\d+);thread MainThread;.+ \d+$", body.decode(), re.MULTILINE)
    assert {int(pid) for pid in found} == processes(family)
    response, body = ask_debug(family, "/debug/profile?seconds=1")
    assert (response.status, response.getheader("Content-Type")) == (200, "image/svg+xml")
    titles = [each.text for each in ET.fromstring(body).iter() if "title" in each.tag]
    for pid in processes(family):
        assert any(title.startswith(f"process {pid} (") for title in titles)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        *(
            (f"seconds={text}", "seconds: expected a number from 1 to 60")
            for text in ("0", "61", "nan", "soon", "")
        ),
        ("format=png", "format: expected svg or text"),
    ],
)
def test_a_profile_with_an_invalid_parameter_is_refused(family, query, message):
    response, body = ask_debug(family, f"/debug/profile?{query}")
    assert response.status == 400
    assert message.encode() in body


def test_a_profile_is_made_by_get_only(family):
    for method in ("HEAD", "POST"):
        assert ask_debug(family, "/debug/profile?seconds=1", method)[0].status == 405


def test_a_worker_that_does_not_answer_is_named(family):
    (worker,) = family.others
    os.kill(worker, signal.SIGSTOP)
    try:
        body = ask_debug(family, "/debug/stacks")[1]
    finally:
        os.kill(worker, signal.SIGCONT)
    assert f"process {worker}\nno answer\n".encode() in body
    assert f"process {family.process.pid}\nthreads: ".encode() in body
    # Its late answer is not taken for that of the next request.
    assert ask_debug(family, "/debug/stacks")[1].count(b"thread MainThread\n") == 2
