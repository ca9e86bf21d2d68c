"""Runs every measurement of what a device does by itself, one after the other.

    python benchmarks/field.py --data DIR [--only drivers,bands]

Each is a script of its own in field_parts/, which prints machine, versions, marks and figures. All together take hours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

PARTS = ("cost", "drivers", "prior", "sensors", "feedback", "bands", "learn", "health")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("EDGE_LSTM_DATA"), help="folder of the recordings")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    options = parser.parse_args()
    if options.data is None:
        parser.error("expected the folder of the recordings: --data or EDGE_LSTM_DATA")
    failed = []
    for part in options.only.split(","):
        print(f"\n# {part}", flush=True)
        script = Path(__file__).with_name("field_parts") / f"{part}.py"
        if subprocess.run([sys.executable, script, "--data", options.data], check=False).returncode:
            failed.append(part)
    if failed:
        sys.exit(f"not measured to the end: {', '.join(failed)}")


if __name__ == "__main__":
    main()
