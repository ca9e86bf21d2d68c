"""How long the command line and a service take to start, alone or in turn with another checkout.

    python benchmarks/start.py [--rounds 21] [--against CHECKOUT]

`--help` is measured to its end, `edge-lstm run` until it reports READY to systemd's socket; no broker is needed. With
`--against`, both checkouts run in turn, and the ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIXTURE = ROOT / "tests/fixtures/pump-lstm.elstm"
FIGURES = ("--help, s", "READY, s", "READY, CPU s", "RSS, MB")


def environment(checkout: Path, links: Path) -> dict[str, str]:
    """The variables that make Python import this checkout; `links` gets its data packages under their names."""
    links.mkdir(exist_ok=True)
    data = {"edge_lstm_recipes": "train/recipes", "edge_lstm_device_configs": "device_configs"}
    for name, folder in data.items():
        if not (links / name).exists():
            (links / name).symlink_to(checkout / folder)
    roots = [checkout / "runtime", checkout / "train", checkout / "export", links]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    return {**variables, "PYTHONPYCACHEPREFIX": str(links / "bytecode")}


def measure(variables: dict[str, str], folder: Path) -> tuple[float, float, float, float]:
    """The figures of `FIGURES`, once."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "edge_lstm"]
    subprocess.run([*command, "--help"], env=variables, stdout=subprocess.DEVNULL, check=True)
    shown_s = time.monotonic() - begun
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = folder / "service.toml"
    config.write_text(f'bundle = "{FIXTURE}"\nbackend = "litert"\n[mqtt]\nurl = "mqtt://127.0.0.1:9"\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(60)
        variables = {**variables, "NOTIFY_SOCKET": str(folder / "notify")}
        begun = time.monotonic()
        process = subprocess.Popen([*command, "run", str(config)], env=variables, stderr=subprocess.DEVNULL)
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            ready_s = time.monotonic() - begun
            tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
            cpu_s = sum(int(path.read_text().split()[0]) for path in tasks) / 1e9
            status = Path(f"/proc/{process.pid}/status").read_text()
            rss_mb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
    return shown_s, ready_s, cpu_s, rss_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--against", type=Path, help="root of another checkout")
    options = parser.parse_args()
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    print(f"Python {platform.python_version()}, numpy {version('numpy')}, {options.rounds} rounds, medians")
    with tempfile.TemporaryDirectory() as name:
        checkouts = {"here": ROOT} if options.against is None else {"here": ROOT, "other": options.against.resolve()}
        variables = {key: environment(checkout, Path(name) / key) for key, checkout in checkouts.items()}
        for key in checkouts:
            measure(variables[key], Path(name) / "service")  # writes the byte code
        rounds = []
        for number in range(options.rounds):
            order = list(checkouts) if number % 2 else list(checkouts)[::-1]
            rounds.append({key: measure(variables[key], Path(name) / "service") for key in order})
    for place, figure in enumerate(FIGURES):
        medians = [f"{key} {statistics.median(one[key][place] for one in rounds):8.3f}" for key in checkouts]
        if options.against is not None:
            ratio = statistics.median(one["here"][place] / one["other"][place] for one in rounds)
            medians.append(f"here / other {ratio:.3f}")
        print(f"{figure:<14}{'   '.join(medians)}")


if __name__ == "__main__":
    main()
