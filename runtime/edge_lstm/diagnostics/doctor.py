"""The doctor: checks what a service needs on this machine; each finding has a light and, where useful, a remedy.

It runs every check even where an early one fails. A check that could not look is unknown, never green.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_lstm.bundle.archive import Bundle
from edge_lstm.deploy.install import state_folder
from edge_lstm.diagnostics import model
from edge_lstm.diagnostics.board import board
from edge_lstm.diagnostics.broker import broker, credentials
from edge_lstm.diagnostics.clock import clock
from edge_lstm.diagnostics.disk import disk
from edge_lstm.diagnostics.finding import Finding, Light
from edge_lstm.diagnostics.software import software
from edge_lstm.diagnostics.trial_messages import forecasts, publishing, receiving
from edge_lstm.foundation.config import read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.hardware.machine import this_machine
from edge_lstm.messages.encoder import Encoder
from edge_lstm.service.codecs import forecast_decoder, message_codecs
from edge_lstm.service.config import ServiceConfig
from edge_lstm.service.opened_files import state_path
from edge_lstm.streaming.reading import Driver, Event, Prediction
from edge_lstm.streaming.step_results import event_id

_LIGHTS: tuple[Light, ...] = ("red", "amber", "unknown", "green")
_LONG_NAME = "x" * 64
_HEADER_BYTES = 5  # of an MQTT packet, with the length of its topic and its packet identifier


def examine(path: Path, root: Path = Path("/")) -> Iterator[Finding]:
    """All findings for the service config in `path`, one by one; `root` holds proc/, run/ and sys/."""
    config, opened, chosen, reachable = None, None, None, False
    lights: dict[str, Light] = {}
    folder = path.parent
    try:
        config = read_toml(path, ServiceConfig)
    except EdgeLstmError as error:
        yield Finding("config", "red", error.message, error.hint)
    else:
        yield Finding("config", "green", f"{path}: every key is valid")
        access = credentials(config.mqtt, folder)
        reachable = access.light == "green"
        yield access
        finding, opened, chosen = model.bundle(folder / config.bundle, config, folder)
        yield finding
        if opened is not None:
            fits = mapping(config, opened)
            lights[fits.check] = fits.light
            yield fits
            if config.learn.enabled:
                yield model.learning(config, opened)
    yield from software(this_machine(root), None if config is None else config.device)
    yield from model.backends(chosen)
    yield from clock([path, *([folder / config.bundle] if config is not None else [])], root)
    yield from board(root)
    if config is None:
        for check in ("bundle", "disk", "broker"):
            yield Finding(check, "unknown", "not checked, because the config is not valid", "correct the config first")
        return
    state = state_path(state_folder(path, root) or folder, config.state).absolute()
    yield from disk(state, root)
    if reachable:
        for finding in broker(config.mqtt, folder, config.input.topic_filters, prediction_bytes(config, opened)):
            lights[finding.check] = finding.light
            yield finding
        if lights["broker"] == "green":
            yield from publishing(config, folder, state)
        if lights.get("subscription") == "green":
            yield from receiving(config, folder)
            if opened is not None and lights["mapping"] == "green":
                yield from forecasts(config, folder, opened.contract)
    else:
        found = "not checked, because the credentials cannot be used"
        yield Finding("broker", "unknown", found, "see the line access")


def mapping(config: ServiceConfig, opened: Bundle) -> Finding:
    """Whether [input] and [output] fit the inputs and outputs of the bundle."""
    try:
        message_codecs(config, opened)
        forecast_decoder(config, opened.contract)
    except EdgeLstmError as error:
        return Finding("mapping", "red", error.message, error.hint)
    return Finding("mapping", "green", f"{', '.join(config.input.topic_filters)} to {config.output.topic}")


def prediction_bytes(config: ServiceConfig, opened: Bundle | None) -> int:
    """The size in bytes of the MQTT packet of a prediction, for a stream with a long name."""
    if opened is None:
        return 0
    try:
        encoder = Encoder(config.output, opened.id)
    except EdgeLstmError:
        return 0
    values: dict[str, dict[int, float]] = {}
    for name, horizon in opened.contract.outputs:
        values.setdefault(name, {})[horizon] = -1.2345678e-12
    prediction = Prediction(_LONG_NAME, time.time(), 10**9, 10**9, values, 0)
    if opened.contract.alarm is not None:
        drivers = [Driver(name, 0.12345678, -1.2345678e-12, -1.2345678e-12) for name in opened.contract.targets]
        event = Event(event_id(_LONG_NAME, time.time()), time.time(), 1.23456, time.time())
        prediction = prediction._replace(score=1.23456, alarm=True, drivers=drivers, event=event)
    return _HEADER_BYTES + len(encoder.topic(_LONG_NAME).encode()) + len(encoder.payload(prediction))


def facts(findings: list[Finding]) -> dict[str, Any]:
    """The findings as JSON values."""
    lights = Counter(finding.light for finding in findings)
    return {
        "lights": {light: lights[light] for light in _LIGHTS},
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def summary(findings: list[Finding]) -> str:
    """The number of findings by light, as text."""
    lights = Counter(finding.light for finding in findings)
    return ", ".join(f"{lights[light]} {light}" for light in _LIGHTS if lights[light])
