"""The service config (service.toml), typed and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edge_lstm.backends.protocol import ExecutionOptions
from edge_lstm.bundle.schemes import Scheme
from edge_lstm.foundation.config import key, read_toml
from edge_lstm.foundation.errors import EdgeLstmError
from edge_lstm.foundation.times.clock import Trust
from edge_lstm.hardware.boards import (
    BackendName,
    Provider,
    Sync,
    board_names,
    board_table,
    read_board,
    unknown_board,
)
from edge_lstm.messages.decoder import InputMapping
from edge_lstm.messages.forecasts.forecast_mapping import ForecastMapping
from edge_lstm.messages.mapping import OutputMapping
from edge_lstm.messages.topics import STREAM, matches_filter, part_names
from edge_lstm.mqtt.address import parse_address
from edge_lstm.mqtt.credentials import Login, Tls, credential_path, read_password, secret_path
from edge_lstm.mqtt.options import ConnectionOptions
from edge_lstm.service.feedback.config import FeedbackConfig, feedback_topic

_MOST_NAME = 1000  # characters
_SECRET_FILES = ("password_file", "key_file")
_SECRETS = "a password does not belong in a file that is copied and shown: set password_file or password_credential"


class ConfigFile(NamedTuple):
    """A file that a service config names."""

    key: str  # like "mqtt.ca_file"
    path: str  # as in the config: a relative one starts at the config's folder
    role: Literal["bundle", "public", "secret"]  # secret: readable by root only, and handed to the service by systemd

    @property
    def name(self) -> str:
        """The key without its table: the name of a secret's systemd credential."""
        return self.key.rpartition(".")[2]


@dataclass(frozen=True)
class MqttConfig:
    """The broker, and how service and broker authenticate each other."""

    url: str = key(
        doc="broker address: mqtt://host:port, or ws://host:port/path over a WebSocket; with TLS: mqtts://, wss://"
    )
    protocol: Literal["5", "3.1.1"] = key("5", doc="MQTT version")
    client_id: str = key("edge-lstm", doc="MQTT client id, one per service: the broker keeps the session under it")
    session_expiry_s: int = key(
        604_800,
        least=0,
        most=4_294_967_295,
        doc="how long the broker keeps the session while the service is away; 0: not at all",
    )
    qos: Literal[0, 1] = key(1, doc="QoS of the subscription; at 0, readings may get lost")
    receive_maximum: int = key(
        1000, least=1, most=65_535, doc="largest number of unacknowledged readings in transit (MQTT 5)"
    )
    keepalive_s: int = key(30, least=1, most=65_535, doc="MQTT keep-alive, seconds")
    username: str | None = key(None, doc="MQTT user name; none: anonymous, or identified by the client certificate")
    password_file: str | None = key(None, doc="path of a file that holds the password")
    password_credential: str | None = key(
        None, doc="name of a systemd credential that holds the password (LoadCredential=)"
    )
    ca_file: str | None = key(None, doc="path of the CA certificate; none: the system's certificate authorities")
    cert_file: str | None = key(None, doc="path of the client certificate, for a broker that asks for one")
    key_file: str | None = key(None, doc="path of the client certificate's private key")
    password: str | None = key(None, refused=_SECRETS)

    def faults(self) -> Iterator[tuple[str, str]]:
        tls = True
        try:
            tls = parse_address(self.url).tls
        except EdgeLstmError as error:
            yield "url", f"{error.message}; {error.hint}"
        if not self.client_id or any(sign in self.client_id for sign in "/+#"):
            yield "client_id", f'expected a name without / + #, found "{self.client_id}"'
        for name in ("client_id", "username"):
            text = getattr(self, name) or ""
            if len(text) > _MOST_NAME or not text.isprintable():  # the broker would close every connection
                yield name, f"expected a printable text of 1 to {_MOST_NAME} characters, found {text[:60]!r}"
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(self, name) is not None and not tls:
                yield name, f'expected an address that begins with mqtts:// or wss:// beside it, found "{self.url}"'
        if (self.cert_file is None) != (self.key_file is None):
            missing, present = ("cert_file", "key_file") if self.cert_file is None else ("key_file", "cert_file")
            yield missing, f"expected a path, since {present} is set, found none"
        if self.password_file is not None and self.password_credential is not None:
            yield "password_credential", "expected this or password_file, found both"
        if self.username is None and (self.password_file is not None or self.password_credential is not None):
            yield "username", "expected a name that goes with the password, found none"

    def files(self) -> Iterator[ConfigFile]:
        """The files that prove who the broker and the service are."""
        for name in ("ca_file", "cert_file", "password_file", "key_file"):
            if (path := getattr(self, name)) is not None:
                yield ConfigFile(f"mqtt.{name}", path, "secret" if name in _SECRET_FILES else "public")

    def tls(self, folder: Path) -> Tls | None:
        """The TLS files for mqtts:// and wss://; relative paths start at `folder`. None without TLS."""
        if not parse_address(self.url).tls:
            return None
        ca_file, cert_file = (None if path is None else folder / path for path in (self.ca_file, self.cert_file))
        key_file = None if self.key_file is None else secret_path(folder, self.key_file, "key_file")
        return Tls(ca_file, cert_file, key_file)

    def login(self, folder: Path) -> Login | None:
        """The user, and the password from its file. Raises EdgeLstmError if that is missing or unreadable."""
        if self.username is None:
            return None
        if self.password_credential is not None:
            return Login(self.username, read_password(credential_path(self.password_credential)))
        if self.password_file is not None:
            return Login(self.username, read_password(secret_path(folder, self.password_file, "password_file")))
        return Login(self.username)

    def options(self, folder: Path) -> ConnectionOptions:
        """How to reach the broker and log in, from files that start at `folder`; other options have their defaults.

        Raises EdgeLstmError if the password's file is missing or unreadable.
        """
        return ConnectionOptions(self.protocol, self.tls(folder), self.login(folder))

    def check_files(self, folder: Path) -> None:
        """Raises EdgeLstmError that lists every missing or unusable file."""
        errors = []
        for read in (self.login, self._context):
            try:
                read(folder)
            except EdgeLstmError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            faults = "".join(f"\n  {error.message}" for error in errors)
            raise EdgeLstmError(f"[mqtt]: {len(errors)} faults:{faults}", " / ".join(error.hint for error in errors))

    def _context(self, folder: Path) -> None:
        if (tls := self.tls(folder)) is not None:
            tls.context()


@dataclass(frozen=True)
class ClockConfig:
    """The clock of this machine, by which the times of readings are judged."""

    trust: Trust = key(
        "kernel",
        doc="when the clock counts as right: kernel: while a time service keeps it, as the kernel says; always; never",
    )


@dataclass(frozen=True)
class MetricsConfig:
    """Metrics for Prometheus, over HTTP and without a password: for this machine, or for a network that is trusted."""

    port: int | None = key(None, least=1, most=65_535, doc="TCP port of /metrics; none: there are no metrics")
    host: str = key("127.0.0.1", doc="address to listen at; the default: this machine alone")
    worst_streams: int = key(
        0, least=0, most=10, doc="of how many streams with most dropped readings the metrics have the names"
    )


@dataclass(frozen=True)
class LearnConfig:
    """Corrections that the device learns from the errors of its forecasts."""

    enabled: bool = key(False, doc="whether forecasts are corrected, once that has made their rolling error smaller")
    memory_steps: int = key(
        200, least=20, most=1_000_000, doc="how many past errors count: an error this old has a weight of 37 %"
    )
    margin: float = key(
        0.02,
        least=0,
        most=0.9,
        doc="a correction is published while its rolling squared error is lower than the bundle's by this share",
    )


@dataclass(frozen=True)
class ServiceConfig:
    """One service: a bundle, a broker, its input and output. Relative paths start at the config's folder."""

    bundle: str = key(doc="path of the .elstm file")
    mqtt: MqttConfig = key(doc="connection to the broker")
    device: str | None = key(
        None, doc="board name (edge-lstm device list); the board sets the keys that this file leaves out"
    )
    backend: BackendName | None = key(
        None, doc="inference backend; none: the first installed of litert, onnx, tflite-runtime, numpy"
    )
    scheme: Scheme | None = key(None, doc="quantization scheme; none: int8 where the bundle has it")
    threads: int = key(1, least=1, most=256, doc="threads per step")
    cores: list[int] | None = key(None, least=0, doc="CPU cores that the process may use; none: all")
    providers: list[Provider] | None = key(
        None, doc="execution providers of onnxruntime, the preferred one first; none: the CPU"
    )
    trust: str | list[str] | None = key(
        None, doc="path of a file with public keys, or several paths; a bundle that none of them signed is refused"
    )
    bundle_name: str | None = key(None, doc="name that the bundle must have; none: any")
    allow_downgrade: bool = key(
        False, doc="whether a bundle may have an older version than the highest that this service has run"
    )
    state: str = key("state.db", doc="path of the state database, which keeps the streams' states")
    durability: Literal["exactly-once", "at-most-once"] = key(
        "exactly-once",
        doc="exactly-once: QoS 1; at-most-once: QoS 0, states are committed every checkpoint_s and at a stop",
    )
    checkpoint_s: float = key(60.0, least=0.1, doc='time between commits with durability = "at-most-once"')
    sync: Sync = key(
        "full", doc="full: a commit waits for the disk; normal: it does not, and a power cut may lose the last commits"
    )
    commit_interval_s: float = key(
        0.0,
        least=0,
        most=60,
        doc="shortest time between two commits, to spare an SD card; readings wait in the meantime",
    )
    memory_max_mb: int | None = key(
        None, least=32, doc="memory limit that edge-lstm device install writes into the systemd unit; none: no limit"
    )
    watchdog_s: float = key(60.0, least=1, doc="systemd restarts the service if its main loop hangs for this long")
    late: Literal["rewind", "drop"] = key(
        "rewind", doc="rewind: a late reading is inserted at its time; drop: it is dropped and counted"
    )
    max_rewind: int = key(
        8, least=1, most=1000, doc="how many samples late a reading may be; otherwise it is dropped and counted"
    )
    max_steps_per_reading: int = key(
        10_000,
        least=1,
        most=1_000_000,
        doc="a reading that would cause more steps, by the empty intervals of a grid or by a rewind, is dropped and "
        "counted as costly",
    )
    max_streams: int = key(
        100_000,
        least=1,
        doc="streams in memory; if there are more, those that were idle longest are only in the database",
    )
    max_stream_names: int = key(
        10_000,
        least=1,
        doc="streams in the database; beyond, those with fewer than ten readings are forgotten, else new ones refused",
    )
    forget_after: float | None = key(
        None,
        least=0.00001,
        doc="days without readings after which a stream leaves the database, while the clock counts as right; "
        "none: never",
    )
    history: int = key(
        10_000, least=0, doc="number of readings kept for edge-lstm replay --history and edge-lstm history export"
    )
    history_per_stream: int | None = key(
        None, least=1, doc="number of readings kept of one stream; none: a busy stream may fill the history"
    )
    history_max_mb: float = key(100.0, least=0.1, doc="size of the kept readings; one stream gets at most half of it")
    history_days: float | None = key(
        None, least=0, doc="readings that were received longer ago are deleted; none: their age does not matter"
    )
    sensor_timeout_s: float | None = key(
        None,
        least=0.001,
        doc="seconds without a value after which a sensor is gone, while its stream goes on; none: as the bundle says, "
        "1.5 times the longest such time in training",
    )
    max_ahead_s: float = key(
        300.0,
        least=0,
        doc="while the clock counts as right, a reading further in the future is refused; and a stream whose last time "
        "is further in the future restarts at a reading that agrees with the clock",
    )
    stats_interval_s: float = key(60.0, least=0.1, doc="time between two messages with statistics")
    feedback: FeedbackConfig = key(FeedbackConfig(), doc="what an operator's commands may change")
    clock: ClockConfig = key(ClockConfig(), doc="how far this machine's clock is trusted")
    metrics: MetricsConfig = key(MetricsConfig(), doc="metrics for Prometheus")
    learn: LearnConfig = key(LearnConfig(), doc="corrections that the device learns")
    input: InputMapping = key(InputMapping(), doc="where to find the readings in the messages")
    forecasts: dict[str, ForecastMapping] = key(
        {}, doc="where to find the forecasts of a quantity that the bundle takes, if not as the bundle says"
    )
    output: OutputMapping = key(OutputMapping(), doc="where predictions go, and in which format")

    @staticmethod
    def completed(data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The table, with the settings of its board for keys that are not set."""
        name = data.get("device")
        return {**board_table(name)["service"], **data} if name in board_names() else data

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.device is not None and self.device not in board_names():
            yield "device", unknown_board(self.device)
        elif self.device is not None and self.providers is not None:
            offered = read_board(self.device).providers
            if absent := [name for name in self.providers if name not in offered]:
                yield (
                    "providers",
                    f"expected of {', '.join(offered)}, which the board has, found {', '.join(absent)}",
                )
        if self.providers == []:
            yield "providers", "expected at least one, found none"
        if self.trust == []:
            yield "trust", "expected at least one path, found none; leave it out to accept unsigned bundles"
        if self.cores == []:
            yield "cores", "expected at least one, found none"
        if self.providers is not None and self.backend != "onnx":
            yield "providers", f'expected backend = "onnx" beside it, found {self.backend or "none"}'
        if self.threads > 1 and self.backend == "numpy":
            yield "threads", "expected 1, since the backend numpy steps rows one by one, found more"
        for topic_filter in self.input.topic_filters:
            if matches_filter(self.published_topic, topic_filter):
                expected = f'expected a topic outside of [input], which subscribes to "{topic_filter}"'
                yield "output.topic", f'{expected} and would receive its own output; found "{self.output.topic}"'
        if self.mqtt.protocol != "5":
            for name in self.input.needs_mqtt_5:
                yield f"input.{name}", 'expected with mqtt.protocol = "5" only, which has user properties'
            for name in self.output.needs_mqtt_5:
                yield f"output.{name}", f'expected with mqtt.protocol = "5" only, found with "{self.mqtt.protocol}"'

    def files(self) -> Iterator[ConfigFile]:
        """Every file that this config names, in an order that stays the same; the state database is not one of them."""
        yield ConfigFile("bundle", self.bundle, "bundle")
        for path in self.trusted_keys:
            yield ConfigFile("trust", path, "public")
        yield from self.mqtt.files()

    @property
    def subscriptions(self) -> list[str]:
        """The topic filters of the service: of its readings, and the topic of commands."""
        own = [feedback_topic(self.mqtt.client_id)] if self.feedback.enabled else []
        return [*self.input.topic_filters, *own]

    @property
    def trusted_keys(self) -> list[str]:
        """The paths of the public keys; empty: a bundle needs no signature."""
        return [self.trust] if isinstance(self.trust, str) else self.trust or []

    @property
    def execution(self) -> ExecutionOptions:
        """What the backend may use of the machine."""
        return (
            ExecutionOptions(self.threads)
            if self.providers is None
            else ExecutionOptions(self.threads, tuple(self.providers))
        )

    @property
    def published_topic(self) -> str:
        """The topic of predictions; without {stream} if all streams have one name."""
        name = self.input.name
        return self.output.topic if name is None or part_names(name) else self.output.topic.replace(STREAM, name)


def read_service_config(path: Path) -> ServiceConfig:
    """The service config at `path`. Raises EdgeLstmError that lists every fault of the config, or of its files."""
    config = read_toml(path, ServiceConfig)
    config.mqtt.check_files(path.parent)
    return config
