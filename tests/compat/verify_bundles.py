"""The runtime half: verifies every bundle of a folder on every backend that can run it, and prints the matrix.

python -m tests.compat.verify_bundles FOLDER BACKEND...    (the backends that must be installed)
"""

from __future__ import annotations

import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_lstm.backends.registry import installed, runnable
from edge_lstm.backends.selftest import verify
from edge_lstm.bundle.archive import Bundle

PACKAGES = ("numpy", "onnxruntime", "tflite-runtime", "ai-edge-litert")


def versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main(folder: Path, wanted: list[str]) -> int:
    print(f"# {versions()}")
    if missing := sorted(set(wanted) - set(installed())):
        print(f"FAILED: expected the backends {', '.join(wanted)}, found none of {', '.join(missing)}")
        return 1
    passed: Counter[tuple[str, str]] = Counter()
    failed = 0
    paths = sorted(folder.glob("*.elstm"))
    for path in paths:
        bundle = Bundle.open(path)
        for verdict in verify(bundle, runnable(bundle)):
            # drift is the network's own, and large where nobody trained it; the runtime answers for these two
            if verdict.error <= verdict.parity and verdict.smallest_batch is not None:
                passed[verdict.backend, verdict.scheme] += 1
            else:
                failed += 1
                print(f"FAILED {path.name} {verdict.backend} {verdict.scheme}: {verdict.finding}")
    for (backend, scheme), count in sorted(passed.items()):
        print(f"{backend:<16}{scheme:<14}{count} bundles")
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
