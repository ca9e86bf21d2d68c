"""The commands of a running service: `run`, `status`, and `broker` for a first try."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_lstm.cli.options import config_argument
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.text import escaped

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from edge_lstm.service.config import ServiceConfig
    from edge_lstm.service.reports.stats_requests import StatsRequests


@click.command()
@config_argument
@click.option(
    "--allow-downgrade",
    is_flag=True,
    help="Accept a bundle with an older version than the highest that this service has run.",
)
def run(config: Path, allow_downgrade: bool) -> None:
    """Run the service: MQTT readings in, predictions out.

    CONFIG is a service config (service.toml). The service keeps the state of each stream across restarts.
    """
    import faulthandler
    import gc

    gc.disable()  # a start makes no garbage; the runner enables it again
    from edge_lstm.service.deferred_imports import defer_rarely_used

    faulthandler.enable()  # a wheel for another processor crashes the process: this prints in which import
    defer_rarely_used()
    from edge_lstm.service.config import read_service_config
    from edge_lstm.service.runner import serve

    try:
        serve(config, allow_downgrade, _beside if read_service_config(config).metrics.port else None)
    finally:
        gc.enable()  # where the config was refused


def _beside(config: ServiceConfig, requests: StatsRequests) -> AbstractContextManager[object]:
    """The endpoint of the metrics."""
    from edge_lstm.integrations.metrics import metrics_endpoint

    return metrics_endpoint(config.metrics, requests)


@click.command()
@config_argument
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(config: Path, as_json: bool) -> None:
    """Show the status of a running service, over its broker.

    CONFIG is the config of the service (service.toml).
    """
    from edge_lstm.service.config import read_service_config
    from edge_lstm.service.reports.status import read_status, status_text

    facts = read_status(read_service_config(config).mqtt, config.parent)
    click.echo(json.dumps(facts, indent=2) if as_json else escaped(status_text(facts)))


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65534),
    default=1883,
    show_default=True,
    metavar="PORT",
    help="TCP port for MQTT 5; MQTT 3.1.1 uses the next one.",
)
def broker(port: int) -> None:
    """Run a small MQTT broker for this machine only, for first tests."""
    from edge_lstm.foundation.signals import ended_by_signals
    from edge_lstm.mqtt.embedded_broker import EmbeddedBroker

    with ended_by_signals(lambda: None) as ended, EmbeddedBroker(port) as embedded:
        click.echo(f"MQTT 5 at {embedded.address}, MQTT 3.1.1 at {embedded.address_311}; end with Ctrl-C", err=True)
        while embedded.running and not ended:
            time.sleep(0.2)
    if not ended:
        raise EdgeLstmError("expected the broker to run until Ctrl-C, found that it stopped", "start it again")
