"""The metrics of a running service, as Prometheus reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_lstm import Reading
from edge_lstm.messages.decoder import encode_reading
from tests.conftest import free_port
from tests.deadline import wait_until
from tests.paths import ROOT

parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus-client is not installed")

Make = Callable[..., Any]
RULES = ROOT / "docs/prometheus"
ACCEPT = {"Accept": "application/openmetrics-text; version=1.0.0"}


def scraped(port: int) -> dict[str, float]:
    """The samples by name and labels, read by the official parser of OpenMetrics."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=ACCEPT)
    with urllib.request.urlopen(request, timeout=30) as answer:
        families = parser.text_string_to_metric_families(answer.read().decode())
        return {
            sample.name + "".join(f"/{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def send(subscriber: Any, count: int, first: int = 0) -> None:
    for minute in range(first, first + count):
        reading = Reading("tank", 1_700_000_000.0 + 60 * minute, {"level": float(minute % 7)})
        subscriber.publish("sensors/tank", encode_reading(reading))


def metrics(port: int, more: str = "") -> str:
    return f"[metrics]\nport = {port}\n{more}\n"


def test_a_scrape_has_the_figures_of_this_moment(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber, port = subscribe(mosquitto.address, "predictions/+"), free_port()
    service = start_service(bundle_path, mosquitto.address, extra=metrics(port, "worst_streams = 1"))
    service.wait_connected()
    send(subscriber, 20)
    send(subscriber, 2, first=18)  # again
    subscriber.publish("sensors/tank", "21.5 degrees")
    wait_until(lambda: scraped(port)["edge_lstm_messages_unused_total/reason=refused"] == 1, "all is counted")
    found = scraped(port)
    expected = {
        "edge_lstm_responsive": 1,
        "edge_lstm_connected": 1,
        "edge_lstm_readings_total": 22,
        "edge_lstm_steps_total": 20,
        "edge_lstm_predictions_total": 20,
        "edge_lstm_readings_dropped_total/reason=duplicate": 2,
        "edge_lstm_stream_readings_dropped_total/reason=duplicate/stream=tank": 2,
        "edge_lstm_streams": 1,
        "edge_lstm_step_seconds_count": 20,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["edge_lstm_batch_seconds_count"] == found["edge_lstm_batch_seconds_bucket/le=+Inf"] > 0
    assert 0 < found["edge_lstm_step_seconds_sum"] == found["edge_lstm_batch_seconds_sum"]
    assert found["process_resident_memory_bytes"] > 10e6
    (model,) = [name for name in found if name.startswith("edge_lstm_model_info")]
    assert "/backend=numpy/" in model
    assert service.stop() == 0


def test_without_worst_streams_no_metric_names_a_stream(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make
) -> None:
    subscriber, port = subscribe(mosquitto.address, "predictions/+"), free_port()
    start_service(bundle_path, mosquitto.address, extra=metrics(port)).wait_connected()
    send(subscriber, 3)
    wait_until(lambda: scraped(port)["edge_lstm_readings_total"] == 3, "the readings are counted")
    assert not [name for name in scraped(port) if "stream=" in name]


def test_a_reload_keeps_the_endpoint(bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make) -> None:
    subscriber, port = subscribe(mosquitto.address, "predictions/+"), free_port()
    service = start_service(bundle_path, mosquitto.address, extra=metrics(port))
    service.wait_connected()
    send(subscriber, 3)
    wait_until(lambda: scraped(port)["edge_lstm_readings_total"] == 3, "the readings are counted")
    service.process.send_signal(1)
    wait_until(lambda: "reloaded config=" in service.log.read_text(), "the service has reloaded")
    wait_until(lambda: scraped(port).get("edge_lstm_connected") == 1, "it is connected again")
    send(subscriber, 2, first=3)
    wait_until(lambda: scraped(port)["edge_lstm_readings_total"] == 2, "its counters begin again")


def test_a_port_that_is_taken_is_refused(bundle_path: Path, mosquitto: Any, start_service: Make) -> None:
    port = mosquitto.address.port
    service = start_service(bundle_path, mosquitto.address, extra=metrics(port))
    assert service.process.wait(30) == 1
    told = service.log.read_text()
    assert f"expected to listen at 127.0.0.1:{port} for metrics, found: Address already in use" in told
    assert "hint: set another port or host under [metrics]" in told
    assert "Traceback" not in told


def test_dashboard_and_rules_use_metrics_that_there_are() -> None:
    from edge_lstm.integrations import metrics as module

    source = Path(module.__file__).read_text()
    texts = [(RULES / "alerts.yaml").read_text()]
    dashboard = json.loads((RULES / "grafana.json").read_text())
    texts += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {word for text in texts for word in _words(text) if word.startswith("edge_lstm_")}
    assert len(names) > 10
    endings = ("_total", "_bucket", "_sum", "_count", "_info")
    for name in names:
        family = next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)
        assert f'"{family}"' in source, name


def _words(text: str) -> list[str]:
    return "".join(sign if sign.isalnum() or sign == "_" else " " for sign in text).split()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """prometheus(port of a service): the port of a Prometheus that scrapes it and has the alert rules."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    started: list[subprocess.Popen[bytes]] = []

    def start(scraped_port: int) -> int:
        config, port = tmp_path / "prometheus.yml", free_port()
        config.write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{RULES / 'alerts.yaml'}]\n"
            f"scrape_configs: [{{job_name: edge-lstm, static_configs: [{{targets: ['127.0.0.1:{scraped_port}']}}]}}]\n"
        )
        subprocess.run(["promtool", "check", "config", config], check=True, capture_output=True)
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        with (tmp_path / "prometheus.log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def test_a_real_prometheus_scrapes_the_service_and_takes_rules_and_queries(
    bundle_path: Path, mosquitto: Any, start_service: Make, subscribe: Make, prometheus: Callable[[int], int]
) -> None:
    subscriber, port = subscribe(mosquitto.address, "predictions/+"), free_port()
    start_service(bundle_path, mosquitto.address, extra=metrics(port)).wait_connected()
    checked = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read()
    linted = subprocess.run(["promtool", "check", "metrics"], input=checked, capture_output=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, b"")
    server = prometheus(port)
    send(subscriber, 7)

    def asked(query: str) -> list[Any]:
        url = f"http://127.0.0.1:{server}/api/v1/query?query={urllib.request.quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:  # it does not listen yet
            return []

    def readings() -> list[str]:
        return [found["value"][1] for found in asked("edge_lstm_readings_total")]

    wait_until(lambda: readings() == ["7"], "Prometheus has the readings")
    dashboard = json.loads((RULES / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            subprocess.run(
                [
                    "promtool",
                    "query",
                    "instant",
                    f"http://127.0.0.1:{server}",
                    target["expr"].replace("$__rate_interval", "1m"),
                ],
                check=True,
                capture_output=True,
            )
    with urllib.request.urlopen(f"http://127.0.0.1:{server}/api/v1/rules", timeout=30) as answer:
        rules = [rule for group in json.load(answer)["data"]["groups"] for rule in group["rules"]]
    assert len(rules) >= 6
    assert all(rule["health"] in ("ok", "unknown") for rule in rules)
