"""A service from start to end: SIGTERM ends it, SIGHUP begins it anew with the config and bundle as they are now."""

from __future__ import annotations

import gc
import logging
import signal
from pathlib import Path

from edge_lstm.backends.selftest import SelfTestError
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.signals import ended_by_signals
from edge_lstm.service.config import read_service_config
from edge_lstm.service.refusal import announce
from edge_lstm.service.service import Service
from edge_lstm.service.systemd import SystemdNotifier

log = logging.getLogger(__name__)

_OBJECTS_A_ROUND = 10_000  # new ones before garbage is looked for: a batch makes half as many


def serve(config: Path) -> None:
    """Serve by that config until a signal ends it. Raises EdgeLstmError where config or bundle is refused."""
    manager = SystemdNotifier()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves: what it reads now is as it is now
    try:
        settings = read_service_config(config)
        service = Service(settings, config.parent, manager=manager)
    except EdgeLstmError as error:
        manager.status(f"refused: {error.message}")
        if isinstance(error, SelfTestError):
            announce(settings.mqtt, config.parent, error)
        raise
    hangups: list[int] = []

    def hang_up(number: int, frame: object) -> None:
        hangups.append(number)
        manager.reloading()
        service.stop()

    def end() -> None:
        manager.stopping()
        service.stop()

    signal.signal(signal.SIGHUP, hang_up)
    with ended_by_signals(end) as ended:
        while True:
            _settle()
            service.run()
            if ended or not hangups:
                return
            hangups.clear()
            service = _reloaded(service, config, manager)
            if ended:
                service.stop()  # the signal came while there was nobody to tell


def _settle() -> None:
    """Take what is there by now out of the garbage collector's rounds, which stop a service for 20 ms to walk it.

    What a former service left, in cycles, is collected first. What a batch makes dies by itself, so later rounds are
    few: at Python's own 700 objects they take a tenth of a batch's time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_A_ROUND)


def _reloaded(former: Service, config: Path, manager: SystemdNotifier) -> Service:
    """A service by the config and bundle as they are now; by the former ones where those are refused."""
    try:
        service = Service(read_service_config(config), config.parent, manager=manager)
    except EdgeLstmError as error:
        log.error("reload refused, going on as before: %s", str(error).replace("\n", " "))
        return Service(former.config, config.parent, manager=manager, former=former, refused=error)
    log.info("reloaded config=%s", config)
    return service
