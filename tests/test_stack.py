"""Whether what a start calls runs on one piece of stack."""

from __future__ import annotations

import sys

from processes import ROOT, run

from twisted_registry.stack import roomy

#: Prints how many pages were touched anew while ever deeper frames call one more.
CALLS = """
import resource
from twisted_registry.stack import roomy

def nothing():
    pass

def deep(left):
    for _ in range(200):
        nothing()
    if left:
        deep(left - 1)

{decorated}
def begin():
    deep(400)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
begin()
print(faults() - before)
"""


def touched(tmp_path, decorated):
    script = CALLS.format(decorated=decorated)
    status, out, err = run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=ROOT)
    assert status == 0, err
    return int(out)


def test_no_edge_is_crossed_again_and_again(tmp_path):
    # An edge in the way is crossed by 200 calls, each of which touches a new page.
    assert touched(tmp_path, "@roomy") < 100 < touched(tmp_path, "")


def test_nothing_else_changes():
    @roomy
    def added(one, *, two=2):
        """Adds."""
        return one + two

    assert added(1) == 3
    assert added(1, two=1) == 2
    assert added.__doc__ == "Adds."
