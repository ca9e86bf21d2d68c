"""service.toml: what a device's service needs to know, typed and checked whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_lstm.access import Login, Tls, credential_path, read_password
from edge_lstm.codec import InputMapping, OutputMapping
from edge_lstm.config import key, read_toml
from edge_lstm.errors import EdgeLstmError
from edge_lstm.mqtt import parse_address
from edge_lstm.schemes import Scheme
from edge_lstm.topics import STREAM, lies_inside, parts_of

_SECRETS = "a password does not belong into a file that is copied and shown: set password_file or password_credential"


@dataclass(frozen=True)
class MqttConfig:
    """The broker, who this service is to it, and how both prove it."""

    url: str = key(doc="mqtt://host:port, or mqtts://host:port with TLS")
    protocol: Literal["5", "3.1.1"] = key("5", doc="the version of MQTT")
    client_id: str = key("edge-lstm", doc="the broker keeps the session under it: one per service")
    session_expiry_s: int = key(604_800, least=0, most=4_294_967_295, doc="how long the broker keeps what was missed")
    qos: Literal[0, 1] = key(1, doc="of the subscription; 0: readings may get lost")
    receive_maximum: int = key(1000, least=1, most=65_535, doc="readings on their way before the first acknowledgement")
    keepalive_s: int = key(30, least=1, most=65_535, doc="how soon a silent connection is asked whether it lives")
    username: str | None = key(None, doc="none: anonymous, or known by its certificate")
    password_file: str | None = key(None, doc="path of a file that holds the password")
    password_credential: str | None = key(None, doc="name of a systemd credential that holds it (LoadCredential=)")
    ca_file: str | None = key(None, doc="path of the authority's certificate; none: the system's authorities")
    cert_file: str | None = key(None, doc="path of our certificate, for a broker that asks for one")
    key_file: str | None = key(None, doc="path of its private key")
    password: str | None = key(None, refused=_SECRETS)

    def faults(self) -> Iterator[tuple[str, str]]:
        tls = True
        try:
            tls = parse_address(self.url).tls
        except EdgeLstmError as error:
            yield "url", error.message
        if not self.client_id or any(sign in self.client_id for sign in "/+#"):
            yield "client_id", f'expected a name without / + #, found "{self.client_id}"'
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(self, name) is not None and not tls:
                yield name, f'expected an address that begins with mqtts:// beside it, found "{self.url}"'
        if (self.cert_file is None) != (self.key_file is None):
            missing, present = ("cert_file", "key_file") if self.cert_file is None else ("key_file", "cert_file")
            yield missing, f"expected a path, since {present} is set, found none"
        if self.password_file is not None and self.password_credential is not None:
            yield "password_credential", "expected this or password_file, found both"
        if self.username is None and (self.password_file is not None or self.password_credential is not None):
            yield "username", "expected a name that goes with the password, found none"

    def tls(self, folder: Path) -> Tls | None:
        """What mqtts:// needs to know; relative paths start at `folder`. None for mqtt://."""
        if not parse_address(self.url).tls:
            return None
        paths = (self.ca_file, self.cert_file, self.key_file)
        return Tls(*(None if path is None else folder / path for path in paths))

    def login(self, folder: Path) -> Login | None:
        """The user, and the password from its file. Raises EdgeLstmError where that is missing or unreadable."""
        if self.username is None:
            return None
        if self.password_credential is not None:
            return Login(self.username, read_password(credential_path(self.password_credential)))
        if self.password_file is not None:
            return Login(self.username, read_password(folder / self.password_file))
        return Login(self.username)

    def check_files(self, folder: Path) -> None:
        """Raises EdgeLstmError that lists every file of it that is missing or unfit."""
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
class ServiceConfig:
    """One service: a bundle, a broker, and what goes in and out. Relative paths start at the file's folder."""

    bundle: str = key(doc="path of the .elstm file")
    mqtt: MqttConfig = key(doc="the broker")
    backend: Literal["litert", "onnx", "tflite-runtime", "numpy"] | None = key(None, doc="none: the first installed")
    scheme: Scheme | None = key(None, doc="none: int8 where the bundle has it")
    trust: str | None = key(None, doc="path of a public key: a bundle that it did not sign is refused")
    state: str = key("state.db", doc="path of the database that keeps the streams' states")
    durability: Literal["exactly-once", "at-most-once"] = key(
        "exactly-once", doc="at-most-once: QoS 0, states kept every checkpoint_s and at stop"
    )
    checkpoint_s: float = key(60.0, least=0.1, doc="seconds between commits where durability is at-most-once")
    late: Literal["rewind", "drop"] = key("rewind", doc="what becomes of a reading older than its stream's last one")
    max_rewind: int = key(8, least=1, most=1000, doc="how many samples it may lie back")
    max_streams: int = key(100_000, least=1, doc="streams in memory; the longest idle ones wait in the database")
    history: int = key(10_000, least=0, doc="readings kept for edge-lstm replay --history")
    max_ahead_s: float = key(
        86_400.0,
        least=0,
        doc="a reading further in the future is refused: one wrong clock must not make all that follows late",
    )
    stats_interval_s: float = key(60.0, least=0.1, doc="seconds between messages on the stats topic")
    input: InputMapping = field(default_factory=InputMapping)
    output: OutputMapping = field(default_factory=OutputMapping)

    def faults(self) -> Iterator[tuple[str, str]]:
        for wish in self.input.topic_filters:
            if lies_inside(self._published, wish):
                expected = f'expected a topic outside of [input], which subscribes to "{wish}": a service that hears'
                yield "output.topic", f'{expected} itself never comes to an end; found "{self.output.topic}"'
        if self.mqtt.protocol != "5":
            for name in self.output.needs_mqtt_5:
                yield f"output.{name}", f'expected with mqtt.protocol = "5" only, found with "{self.mqtt.protocol}"'

    @property
    def _published(self) -> str:
        """The topic of predictions; whole where all streams have one name."""
        name = self.input.name
        return self.output.topic if name is None or parts_of(name) else self.output.topic.replace(STREAM, name)


def read_service_config(path: Path) -> ServiceConfig:
    """The service config at `path`. Raises EdgeLstmError that lists every fault of it, or of the files it names."""
    config = read_toml(path, ServiceConfig)
    config.mqtt.check_files(path.parent)
    return config
