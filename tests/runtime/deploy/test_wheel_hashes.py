"""Wheels of pinned packages that are other files than those that were tested do not reach a board."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_lstm.deploy.wheel_hashes import known_wheels, refuse_other_wheels
from edge_lstm.deploy.wheel_target import Target
from edge_lstm.foundation.errors import EdgeLstmError
from tests.wheel_hashes import pins, targets

# They have no wheel for these, and the boards that need one get another backend or the distribution's package.
WITHOUT_WHEEL = {"ai-edge-litert", "backports.strenum", "onnxruntime", "tflite-runtime", "ml-dtypes", "cffi", "msgpack"}


def named(pin: str) -> str:
    """A pin as wheels write it: name-version."""
    name, _, version = pin.partition("==")
    return f"{name.lower().replace('-', '_').replace('.', '_')}-{version}-"


def known_names(target: Target) -> list[str]:
    """The known wheels that fit a target, with names in the form of `named`."""
    fitting = [name for name in known_wheels() if target.takes(name)]
    return [f"{name.split('-')[0].lower().replace('.', '_')}-{name.partition('-')[2]}" for name in fitting]


@pytest.mark.parametrize("target", targets(), ids=lambda one: f"{one.machine}-{one.minor}-{one.glibc}")
def test_the_wheels_of_each_board_are_known(target: Target) -> None:
    known = known_names(target)
    missing = {pin.partition("==")[0] for pin in pins(target) if not any(one.startswith(named(pin)) for one in known)}
    assert missing <= WITHOUT_WHEEL


def test_each_known_wheel_is_of_a_pinned_version() -> None:
    pinned = {named(pin) for target in targets() for pin in pins(target)}
    for name, digest in known_wheels().items():
        package, version = name.split("-")[:2]
        assert f"{package.lower().replace('.', '_')}-{version}-" in pinned, name
        assert len(digest) == 64, name


def test_a_changed_or_unknown_wheel_of_a_pinned_package_is_refused(tmp_path: Path) -> None:
    (name,) = [one for one in known_wheels() if one.startswith("click-")]
    for changed in (name, name.replace("-py3", "-1-py3"), f"Click-9.9-{name.partition('py3')[1]}-none-any.whl"):
        wheel = tmp_path / changed
        wheel.write_bytes(b"of somebody else")
        with pytest.raises(EdgeLstmError, match=r"as the wheel [Cc]lick-.*, found SHA-256 [0-9a-f]{16}…") as caught:
            refuse_other_wheels([wheel])
        assert "not the one that was tested" in caught.value.hint
    own = tmp_path / "edge_lstm-0.2.0-py3-none-any.whl"
    own.write_bytes(b"ours")
    refuse_other_wheels([own])
