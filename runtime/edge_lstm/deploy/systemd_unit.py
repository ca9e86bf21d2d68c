"""The text of the systemd unit of a service; it writes no file.

The unit takes away every right that the service does not need. `systemd-analyze security` rates it at 1.5 or better.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.backends.selftest import SelfTestError
from edge_lstm.mqtt.address import parse_address
from edge_lstm.service.config import ServiceConfig

# Folders that the unit hides. What the service needs from them is mounted there read-only.
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))
MARK = "# Written by edge-lstm device install"  # the first line of each unit that edge-lstm writes
_LOOPBACK = ("localhost",)
_GPUS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


@dataclass(frozen=True)
class Program:
    """The Python that the unit starts, and the folders of its packages."""

    python: Path
    folders: tuple[Path, ...]


def unit_text(name: str, config: ServiceConfig, path: Path, program: Program, credentials: Mapping[str, Path]) -> str:
    """The unit `name` for the config at `path`. `credentials`: by credential name, the file that systemd reads."""
    return _UNIT.format(
        mark=MARK,
        broker=_plain(str(parse_address(config.mqtt.url))),
        name=name,
        python=_quoted(program.python),
        config=_quoted(path),
        watchdog_s=f"{config.watchdog_s:g}",
        refused=SelfTestError.exit_code,
        limits="\n".join(_limits(config)),
        devices="\n".join(_devices(config)),
        home="\n".join(_home(program)),
        addresses="\n".join(_addresses(parse_address(config.mqtt.url).host)),
        credentials="".join(f"LoadCredential={one}:{_plain(str(file))}\n" for one, file in credentials.items()),
    )


def _limits(config: ServiceConfig) -> Iterable[str]:
    if config.memory_max_mb is not None:
        yield f"MemoryMax={config.memory_max_mb}M"
    yield f"TasksMax={32 + 4 * config.threads}"
    if config.cores is not None:
        yield f"CPUAffinity={' '.join(map(str, config.cores))}"


def _devices(config: ServiceConfig) -> Iterable[str]:
    if not set(config.providers or ()) & set(_GPUS):
        yield from ("PrivateDevices=yes", "DevicePolicy=closed", "MemoryDenyWriteExecute=yes")
        return
    # the device names of a GPU differ between boards, and its driver writes executable memory
    yield from ("# the providers need the GPU", "SupplementaryGroups=video render")


def _home(program: Program) -> Iterable[str]:
    hidden = sorted({folder for folder in program.folders if any(folder.is_relative_to(one) for one in HIDDEN)})
    if not hidden:
        yield "ProtectHome=yes"
        return
    # without this, systemd 252 makes them writable for every user
    yield from ("ProtectHome=tmpfs", "TemporaryFileSystem=/home:ro /root:ro /run/user:ro")
    for folder in hidden:
        yield f"BindReadOnlyPaths={_quoted(folder)}"


def _addresses(host: str) -> Iterable[str]:
    """Allow only the address of the broker. With a host name there is no limit, because its addresses can change."""
    try:
        allowed = "localhost" if host in _LOOPBACK else str(ipaddress.ip_address(host))
    except ValueError:
        return
    yield "IPAddressDeny=any"
    yield f"IPAddressAllow={allowed}"


def _plain(text: str) -> str:
    """Text without specifiers of systemd, which begin with a percent sign."""
    return text.replace("%", "%%")


def _quoted(path: Path) -> str:
    text = _plain(str(path)).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if any(sign in text for sign in " '\"\\;") else text


_UNIT = """\
{mark}, which overwrites this file; add your own lines with: systemctl edit {name}
[Unit]
Description=edge-lstm, predictions for {broker}
Wants=network-online.target
After=network-online.target time-sync.target mosquitto.service
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -m edge_lstm run {config}
ExecReload=/bin/kill -HUP $MAINPID
TimeoutStartSec=180
TimeoutStopSec=15
# the main loop reports that it is alive
WatchdogSec={watchdog_s}
Restart=on-failure
RestartSec=2
# no restart after wrong usage or a failed self-test of the bundle: it would not help
RestartPreventExitStatus=2 {refused}
{limits}
# BLAS would start threads that are not used, each with its own memory
Environment=OPENBLAS_NUM_THREADS=1

# A user of its own, without rights elsewhere; it may write only its state
DynamicUser=yes
StateDirectory={name}
StateDirectoryMode=0700
# an empty folder to run in: no relative path of a model leads to a file
TemporaryFileSystem=/var/empty/edge-lstm:ro
WorkingDirectory=/var/empty/edge-lstm
UMask=0077
{credentials}
ProtectSystem=strict
# ProtectSystem=strict leaves out /run where the unit has its own /proc (seen with systemd 252)
ReadOnlyPaths=/run
{home}
PrivateTmp=yes
{devices}
PrivateUsers=yes
PrivateIPC=yes
PrivateMounts=yes
RemoveIPC=yes
ProtectProc=invisible
# not ProcSubset=pid: LiteRT and onnxruntime read the features of an ARM core from /proc/cpuinfo
ProtectHostname=yes
# not ProtectClock=yes, which also forbids to ask the kernel whether the clock is synchronized; setting it needs a
# capability and system calls that are not granted here
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SocketBindDeny=any
{addresses}
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=adjtimex clock_adjtime clock_adjtime64
# the child process that tests a bundle limits its own memory and processor time
SystemCallFilter=setrlimit prlimit64
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
