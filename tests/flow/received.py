"""What a subscriber does with the predictions that it receives."""

from __future__ import annotations

from collections.abc import Sequence

from edge_lstm import Deduplicator, Prediction

_MAX_REWIND = 40  # at least that of every service in these tests


def without_repeats(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions to use, in their order. Those that were sent again must be equal to the first ones."""
    known: dict[tuple[str, float, int, int], Prediction] = {}
    for one in predictions:
        place = one.stream, one.time, one.step, one.revision
        assert known.setdefault(place, one) == one, "the same step was predicted twice, differently"
    deduplicator = Deduplicator(_MAX_REWIND)
    return [one for one in predictions if deduplicator.is_new(one)]
