"""What is in deploy/ fits what /metrics tells: every query is parsed, every name exists; and by the real Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshkiln.gateway.metrics import OUTCOMES
from meshkiln.telemetry.tally import BUCKETS
from serving import serving, until

DEPLOY = Path(__file__).parent.parent / "deploy"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None and not os.environ.get("MESHKILN_REQUIRE_PROMETHEUS"),
    reason="prometheus and promtool are not installed (Debian: prometheus)",
)


def queries() -> list[str]:
    """Every expression of the dashboard and the rules."""
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            found.extend(value[name] for name in ("expr",) if name in value)
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(json.loads((DEPLOY / "grafana-dashboard.json").read_text()))
    assert len(found) > 15
    rules = re.findall(r"expr: (?:>-\n((?: {10,}.*\n)+)|(.*)\n)", (DEPLOY / "alerts.yml").read_text())
    assert len(rules) == (DEPLOY / "alerts.yml").read_text().count("alert:")
    return found + [" ".join((folded or plain).split()) for folded, plain in rules]


def names(query: str) -> set[str]:
    """The metrics that a query selects."""
    bare = re.sub(r'"[^"]*"', "", query)
    return set(re.findall(r"\b(?:meshkiln|process)_\w+", bare))


def exposed(http: httpx.Client) -> dict[str, set[str]]:
    """Sample names of /metrics, with the names of their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        # A family without samples is told all the same: its name is what a query may select.
        if not family.samples:
            found.setdefault(family.name + ("_total" if family.type == "counter" else ""), set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_that_is_asked_for_is_told(tmp_path: Path) -> None:
    # An upstream that nobody is at: it is told of all the same.
    with serving(tmp_path, upstreams=("http://127.0.0.1:9",), upstream_model="m") as http:
        http.post("/v1/generations?wait=30", content=b"picture", headers={"content-type": "image/png"})
        told = exposed(http)
    for query in queries():
        assert names(query) or query.startswith("up{"), query
        for name in names(query):
            assert name in told, f"{query} wants {name}"
        for label in re.findall(r"[{,](\w+)(?:=~|!=|=|!~)", query):
            if label != "job":
                assert any(label in told[name] for name in names(query)), f"{query} wants a label {label}"


def test_names_and_units_follow_the_conventions(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        http.post("/v1/generations?wait=30", content=b"picture", headers={"content-type": "image/png"})
        families = list(text_string_to_metric_families(http.get("/metrics").text))
    for family in families:
        assert family.documentation
        assert re.fullmatch(r"(meshkiln|process|python)_[a-z0-9_]+", family.name)
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|percent)(_|$)", family.name), family.name
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        if family.name.startswith("meshkiln") and family.name.endswith(("seconds", "bytes")):
            assert family.type in ("counter", "gauge", "histogram")
    by_name = {family.name: family for family in families}
    seconds = by_name["meshkiln_generation_seconds"]
    assert {sample.labels["outcome"] for sample in seconds.samples} == set(OUTCOMES)
    bounds = {float(sample.labels["le"]) for sample in seconds.samples if sample.name.endswith("_bucket")}
    assert bounds == {*BUCKETS, float("inf")}


@needs_prometheus
def test_promtool_accepts_the_metrics_the_rules_and_every_query(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        http.post("/v1/generations?wait=30", content=b"picture", headers={"content-type": "image/png"})
        text = http.get("/metrics").text

    def promtool(*words: str, given: str = "") -> None:
        run = subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "error" not in run.stderr.lower(), run.stderr

    promtool("check", "metrics", given=text)
    promtool("check", "rules", str(DEPLOY / "alerts.yml"))
    promtool("check", "config", str(DEPLOY / "prometheus.yml"))
    promtool("test", "rules", str(DEPLOY / "alerts-test.yml"))
    recorded = tmp_path / "queries.yml"
    rules = [{"record": f"query:{n}", "expr": concrete(query)} for n, query in enumerate(queries())]
    recorded.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", str(recorded))


def concrete(query: str) -> str:
    """A query as the dashboard sends it."""
    return query.replace("$__rate_interval", "1m").replace("$job", "meshkiln")


@needs_prometheus
def test_a_real_prometheus_scrapes_and_answers_every_query(tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with serving(tmp_path / "server") as http:
        for _ in range(3):
            http.post("/v1/generations?wait=30", content=b"picture", headers={"content-type": "image/png"})
        text = (DEPLOY / "prometheus.yml").read_text().replace("127.0.0.1:8081", f"127.0.0.1:{http.base_url.port}")
        (tmp_path / "prometheus.yml").write_text(text.replace("15s", "1s"))
        shutil.copy(DEPLOY / "alerts.yml", tmp_path)
        command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"]
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as prometheus:

                def found(query: str) -> list[Any]:
                    try:
                        answer = prometheus.get("/query", params={"query": query}).json()
                    except (httpx.HTTPError, ValueError):
                        return []
                    assert answer["status"] == "success", (query, answer)
                    return answer["data"]["result"]  # type: ignore[no-any-return]

                until(lambda: found('meshkiln_generation_seconds_count{job="meshkiln",outcome="memory"} == 2'))
                assert found('up{job="meshkiln"} == 1')
                for query in queries():
                    found(concrete(query))
                loaded = prometheus.get("/rules").json()["data"]["groups"][0]["rules"]
                assert {rule["health"] for rule in loaded} <= {"ok", "unknown"}
                assert len(loaded) == (DEPLOY / "alerts.yml").read_text().count("alert:")
        finally:
            process.terminate()
            process.wait(20)
