"""The Grafana dashboard against a running server: it asks for nothing that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import trio
from prometheus_client.parser import text_string_to_metric_families

from candlesync.config import Settings
from candlesync.simulator.settings import SimulatorSettings
from candlesync.store.address import Address
from candlesync.store.redis import RedisSettings
from tests.store.redis_server import run_server
from tests.whole.world import open_world

SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds."""
_METRIC = re.compile(r"\b((?:candlesync|process)_\w+)(?:\{([^}]*)\})?")
_BY = re.compile(r"\bby \(([^)]*)\)")
_FUNCTIONS = re.compile(r"\b(\w+)\s*\(")


def labels_of(selector: str) -> set[str]:
    return set(re.findall(r"(\w+)\s*[=!]~?", re.sub(r'"[^"]*"', '""', selector)))


def expressions(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for panel in panels:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


async def test_each_expression_of_the_dashboard_finds_its_metrics_and_labels_in_a_running_server() -> None:
    with run_server() as redis:
        settings = Settings(symbols=("BTCUSDT",), store=RedisSettings(Address(redis.url)))
        async with open_world(SimulatorSettings(minute_seconds=1.0), settings) as world:
            await world.until_live(seconds=30)
            await trio.sleep(0.5)
            answer = await world.get("/static/grafana.json")
            assert answer.status_code == 200
            assert answer.mimetype == "application/json"
            dashboard = json.loads(await answer.get_data())
            metrics = (await (await world.get("/metrics")).get_data()).decode()
    there: dict[str, set[str]] = {}
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            there.setdefault(sample.name, set()).update(sample.labels)
            values[sample.name] = max(sample.value, values.get(sample.name, 0))
    asked = set()
    for title, expression, legend in expressions(dashboard["panels"]):
        named = _METRIC.findall(expression)
        assert named, title
        grouped = {label.strip() for group in _BY.findall(expression) for label in group.split(",")}
        for name, selector in named:
            assert name in there, (title, name)
            used = labels_of(selector) | grouped | set(re.findall(r"\{\{(\w+)\}\}", legend))
            assert used - SCRAPED <= there[name], (title, name, used)
            asked.add(name)
    # And nothing that is measured is left out of sight, but for these.
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in asked}
    ours = {family.name for family in text_string_to_metric_families(metrics) if family.name.startswith("candlesync_")}
    assert ours - families == {
        "candlesync_backfilled",
        "candlesync_gaps",
        "candlesync_off_grid_rows",
        "candlesync_store_unreadable",
    }
    # What happens at each start has been seen to happen.
    for name in ("frame_delay_seconds_count", "backfill_seconds_count", "rest_latency_seconds_count"):
        assert values[f"candlesync_{name}"] > 0, name
    for name in ("store_commit_seconds_count", "stream_connects_total", "stream_frames_total", "lease_claims_total"):
        assert values[f"candlesync_{name}"] > 0, name
    assert values["candlesync_event_clock_disagreements_total"] > 0, "the simulator's minutes last a second"
    check_form(dashboard)


def check_form(dashboard: dict[str, Any]) -> None:
    """What Grafana needs of it to import it, and people to read it."""
    panels = dashboard["panels"]
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)
    assert [one["name"] for one in dashboard["__inputs"] if one["type"] == "datasource"] == ["DS_PROMETHEUS"]
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    drawn = [panel for panel in panels if panel["type"] != "row"]
    assert panels[0]["title"] == "The promise"
    for panel in drawn:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${DS_PROMETHEUS}"}
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names)
        for target in panel["targets"]:
            expression = target["expr"]
            assert expression.count("(") == expression.count(")"), expression
            assert set(_FUNCTIONS.findall(expression)) <= {
                *("sum", "max", "count", "by", "rate", "increase", "histogram_quantile", "time", "vector", "or"),
            }, expression
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        assert grid["x"] + grid["w"] <= 24
        taken |= cells
