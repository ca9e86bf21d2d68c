"""Runs a service: SIGTERM ends it, SIGHUP reloads its config and bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from edge_lstm.backends.selftest import SelfTestError
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.signals import ended_by_signals
from edge_lstm.service.config import ServiceConfig, read_service_config
from edge_lstm.service.opened_files import prove
from edge_lstm.service.reports.refusal import announce
from edge_lstm.service.reports.stats_requests import StatsRequests
from edge_lstm.service.service import Service
from edge_lstm.service.systemd import SystemdNotifier

log = logging.getLogger(__name__)

_OBJECTS_A_COLLECTION = 10_000  # new objects before the garbage collector runs: a batch makes half as many


Beside = Callable[[ServiceConfig, StatsRequests], contextlib.AbstractContextManager[object]]


def serve(config: Path, allow_downgrade: bool = False, beside: Beside | None = None) -> None:
    """Serve by that config until a signal ends it. Raises EdgeLstmError if config or bundle is refused.

    `allow_downgrade`: the first bundle may have an older version than the highest that ran. `beside`: what runs in
    threads of its own meanwhile, by the first config; it may ask the service for figures.
    """
    manager = SystemdNotifier()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves: it reads the present files anyway
    try:
        settings = read_service_config(config)
        if allow_downgrade:
            settings = dataclasses.replace(settings, allow_downgrade=True)
        requests = None if beside is None else StatsRequests()
        service = Service(settings, config.parent, manager=manager, requests=requests)
    except EdgeLstmError as error:
        manager.status(f"refused: {error.message}")
        if isinstance(error, SelfTestError):
            announce(settings.mqtt, config.parent, error)
        raise
    hangups: list[int] = []

    def hang_up(number: int, frame: object) -> None:
        hangups.append(number)
        manager.reloading()
        service.stop_after(functools.partial(_prove, config))

    def end() -> None:
        manager.stopping()
        service.stop()

    signal.signal(signal.SIGHUP, hang_up)
    others = contextlib.nullcontext() if beside is None or requests is None else beside(settings, requests)
    with others, ended_by_signals(end) as ended:
        while True:
            _freeze_garbage_collector()
            service.run()
            if ended or not hangups:
                return
            hangups.clear()
            service = _reloaded(service, config, manager, requests)
            if ended or hangups:
                service.stop()  # the signal came while there was no service


def _freeze_garbage_collector() -> None:
    """Exclude the present objects from garbage collection, which would stop the service for 20 ms to visit them.

    Objects in cycles of a former service are collected first. A batch makes no cycles, so later collections are rare:
    at Python's own threshold of 700 objects they take a tenth of a batch's time.
    """
    gc.enable()  # `edge-lstm run` starts without it
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_A_COLLECTION)


def _prove(config: Path, turn: Callable[[], None]) -> None:
    """Let a child process test the new bundle while the service serves. A refusal is repeated when it is opened."""
    with contextlib.suppress(EdgeLstmError):
        prove(read_service_config(config), config.parent, turn)


def _reloaded(former: Service, config: Path, manager: SystemdNotifier, requests: StatsRequests | None) -> Service:
    """A service by the present config and bundle; by the former ones if the present ones are refused."""
    try:
        service = Service(read_service_config(config), config.parent, manager=manager, requests=requests)
    except EdgeLstmError as error:
        log.error("reload refused, going on as before: %s", str(error).replace("\n", " "))
        return Service(former.config, config.parent, manager=manager, former=former, refused=error, requests=requests)
    if service.config.metrics != former.config.metrics:
        log.warning("the keys under [metrics] changed, and are used from the next start on")
    log.info("reloaded config=%s", config)
    return service
