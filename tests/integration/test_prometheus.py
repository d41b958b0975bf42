"""Alert rules and the dashboard in ``conf/``, and a scrape, as Prometheus reads them."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import count
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.remote import Remote
from tests.integration.servers import HERE, OURS, Launcher, program
from tests.support.processes import ROOT, free_port, wait_until
from tests.support.receiver import Receiver

pytestmark = pytest.mark.integration

RULES = Path(ROOT, "conf", "prometheus", "alerts.yml")
RULE_TESTS = RULES.with_name("alerts.test.yml")
DASHBOARD = Path(ROOT, "conf", "grafana", "twisted-registry.json")
#: Everything that has metrics of its own, without which they have no samples.
MORE = """\
  debug: {{addr: '{debug}', prometheus: {{enabled: true}}}}
health:
  storagedriver: {{enabled: true}}
notifications:
  endpoints: [{{name: hook, url: '{url}'}}]
"""
WITHIN = """\
  cache: {blobdescriptor: inmemory}
  maintenance: {watermark: {warn: 99%}}
"""
#: Distribution's name of a gauge, which promtool takes for that of a counter.
COMPLAINT = (
    'registry_notifications_pending_total non-counter metrics should not have "_total" suffix\n'
)
#: Labels and metrics that Prometheus adds to a scrape.
ADDED_LABELS, ADDED_METRICS = {"job", "instance", "le"}, {"up"}
#: Metrics that have samples only after something has failed.
OF_FAULTS = {"registry_storage_errors_total"}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    """The text of a scrape after a push and a pull."""
    work, receiver = tmp_path_factory.mktemp("prometheus"), Receiver().start()
    launcher, debug = Launcher(work), f"{HERE}:{free_port()}"
    try:
        more = MORE.format(debug=debug, url=receiver.url)
        served = launcher.start(OURS, work / "store", more=more, within=WITHIN)
        digest = served.remote.push_blob("a", b"a blob")
        assert served.remote.blob("a", digest).status == 200
        remote = Remote(debug)
        assert remote.request("POST", "/debug/maintenance/gc").status == 202

        def read():
            text = remote.request("GET", "/metrics").body.decode()
            is_complete = all(
                name in text
                for name in (
                    *("registry_storage_used_ratio ", "last_run_failed{", 'result="success"'),
                    *("loop_delay_seconds_sum", "registry_notifications_status_total{"),
                )
            )
            return text if is_complete else None

        return wait_until(read)
    finally:
        launcher.close()
        receiver.stop()


def promtool(*arguments, text=None):
    """Run promtool; return its exit status and what it has printed."""
    command = [program("promtool"), *map(str, arguments)]
    ended = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_promtool_accepts_the_text_of_a_scrape(scrape):
    status, printed = promtool("check", "metrics", text=scrape)
    assert (status, printed) in {(0, ""), (3, COMPLAINT)}


def test_promtool_accepts_the_rules_and_their_tests_pass():
    assert promtool("check", "rules", "--lint-fatal", RULES)[0] == 0
    status, printed = promtool("test", "rules", RULE_TESTS)
    assert status == 0, printed


def test_every_rule_is_tested():
    tested = {
        case["alertname"]
        for group in yaml.safe_load(RULE_TESTS.read_text())["tests"]
        for case in group["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules()}


def rules():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries():
    """Return the queries of the dashboard, with values in place of its variables."""
    return [
        re.sub(r"\$(job|instance)", ".*", target["expr"]).replace("$__rate_interval", "5m")
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path):
    recorded = [
        {"record": f"query_{number}", "expr": query}
        for number, query in zip(count(), dashboard_queries(), strict=False)
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert len(recorded) > 20
    assert promtool("check", "rules", path)[0] == 0


@pytest.mark.parametrize("queries", [[rule["expr"] for rule in rules()], dashboard_queries()])
def test_every_metric_and_label_of_a_query_is_in_a_scrape(scrape, queries):
    labels = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
    }
    for query in queries:
        plain = re.sub(r'"[^"]*"', '""', query)
        names = set(re.findall(r"\b(?:registry|process)_\w+", plain)) | (
            ADDED_METRICS & set(re.findall(r"\w+", plain))
        )
        assert names, query
        assert names <= labels.keys() | ADDED_METRICS | OF_FAULTS, query
        used = set(re.findall(r"(\w+)(?:=|!=|=~)\"\"", plain))
        for group in re.findall(r"by \(([\w, ]+)\)", plain):
            used.update(group.split(", "))
        known = set().union(*(labels.get(name, {"driver", "action"}) for name in names))
        assert used <= known | ADDED_LABELS, query


def test_the_dashboard_can_be_imported():
    dashboard = json.loads(DASHBOARD.read_text())
    assert "id" not in dashboard, "Grafana would look for a dashboard with that number"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job", "instance"}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panels)))
    assert used - {"__rate_interval"} == variables
    places = [(each["gridPos"]["x"], each["gridPos"]["y"]) for each in panels]
    assert len(set(places)) == len(places)
    assert all(each["gridPos"]["x"] + each["gridPos"]["w"] <= 24 for each in panels)
