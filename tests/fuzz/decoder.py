"""A million strange messages into every mapping of the fixtures: each is read or refused, and memory stays flat.

`make fuzz` runs it with atheris, which chooses inputs by the code that they reach in the decoder. Half of the inputs
are a payload for a mapping and topic that the first bytes choose. The other half are good messages with a part
replaced. Any other exception, a reading that cannot be stored or published, or an input that takes over ten seconds
ends the run, and build/fuzz then holds that input.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections import Counter

import atheris

from tests.paths import ROOT

FOLDER = ROOT / "build/fuzz"

with atheris.instrument_imports(include=["edge_lstm"]):
    from edge_lstm.foundation.times.text import format_time
    from edge_lstm.messages.decoder import PayloadError
    from tests.device_messages import decoders, device_messages
    from tests.fuzz.memory import rss_mib

DECODERS = decoders()
NAMES = list(DECODERS)
MESSAGES = device_messages()
TOPICS = {name: [message.topic for message in MESSAGES if message.mapping == name] for name in NAMES}
PROPERTIES = {"sent": "2024-03-01T00:00:00Z", "seq": "17"}
_STEADY = 0.1  # of the run, after which caches and the corpus are what they will be


def decode(data: bytes) -> str:
    """Decode one input; "read", "ignored" or "refused"."""
    if len(data) < 4:
        return "ignored"
    if data[0] >= 128:
        message = MESSAGES[data[1] % len(MESSAGES)]
        name, topic, payload = message.mapping, message.topic, message.payload
        at = data[2] * len(payload) // 256
        payload = payload[:at] + data[4:] + payload[at + data[3] % 16 :]
    else:
        name, payload = NAMES[data[0] % len(NAMES)], data[4:]
        topic = TOPICS[name][data[1] % len(TOPICS[name])]
        if data[2] >= 250:  # sometimes an invented topic level
            topic = f"{topic.rpartition('/')[0]}/{data[4:14].decode('utf-8', 'surrogateescape')}"
    try:
        readings = DECODERS[name].readings(topic, payload, PROPERTIES, 1.7e9)
        became = "read" if readings else "ignored"
    except PayloadError as error:
        readings, became = error.readings, "refused"
        str(error).encode()
    for reading in readings:
        format_time(reading.time)
        (reading.stream + (reading.sequence or "")).encode()
        if any(type(value) is not float for value in reading.values.values()):
            raise TypeError(reading)
    return became


class Tally:
    """Counts inputs; prints the rate and the memory at the end."""

    def __init__(self, runs: int) -> None:
        self._runs, self._done = runs, 0
        self._begun, self._first_mib = time.monotonic(), rss_mib()
        self._steady_mib = self._first_mib
        self._became: Counter[str] = Counter()

    def __call__(self, data: bytes) -> None:
        self._became[decode(data)] += 1
        self._done += 1
        if self._done == int(_STEADY * self._runs):
            self._steady_mib = rss_mib()
        if self._done == self._runs:
            rate = self._done / (time.monotonic() - self._begun)
            memory = (
                f"{self._first_mib:.0f} MiB at first, {self._steady_mib:.0f} after a tenth, {rss_mib():.0f} at the end"
            )
            became = ", ".join(f"{count:,} {name}" for name, count in sorted(self._became.items()))
            print(f"{self._done:,} inputs ({became}), {rate:,.0f} inputs/s, RSS {memory}", flush=True)


def dictionary() -> str:
    """A dictionary for libFuzzer: punctuation, and every quoted key and number of the fixtures."""
    found = {"{", "}", "[", "]", ",", "null", "true", "NaN", "-Infinity", "1e400", "85.0", "unavailable", "1709251200"}
    found |= {" ", "=", "\\", "\n", "#", "\0", " bar", "1'234", "2024-10-27T02:30:00", '"bn"', '"bt"', "1000000000i"}
    for message in MESSAGES:
        found.update(re.findall(r'"[^"\\\\]+":?|-?[\d.]+', message.payload.decode("ascii", "ignore")))
    escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in sorted(found))
    return "".join(f'"{word}"\n' for word in escaped)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs (default: %(default)s)")
    runs = parser.parse_args().runs
    shutil.rmtree(FOLDER, ignore_errors=True)
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True)
    for number, message in enumerate(MESSAGES):
        topic = TOPICS[message.mapping].index(message.topic)
        (corpus / f"{number}").write_bytes(bytes([NAMES.index(message.mapping), topic, 0, 0]) + message.payload)
        for at in range(0, 256, 16):
            (corpus / f"{number}-{at}").write_bytes(bytes([128, number, at, 0]))
    (FOLDER / "words").write_text(dictionary())
    limits = [f"-runs={runs}", "-max_len=600", "-timeout=10", "-verbosity=0"]
    atheris.Setup(
        [sys.argv[0], str(corpus), *limits, f"-dict={FOLDER}/words", f"-artifact_prefix={FOLDER}/"], Tally(runs)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
