"""The outbox: which predictions and which message identities may be dropped."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence

import pytest

from edge_lstm.service.processing.outbox import Outbox, Outgoing


class Broker:
    """Takes messages, and confirms them when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.unconfirmed: set[int] = set()

    def publish(self, messages: Sequence[Outgoing]) -> list[int]:
        numbers = [len(self.sent) + place for place in range(len(messages))]
        self.sent += messages
        self.unconfirmed |= set(numbers)
        return numbers

    def outbox(self, batch: int) -> Outbox:
        return Outbox(self.publish, lambda: self.unconfirmed, batch)


def test_batches_of_an_earlier_process_are_confirmed_one_by_one() -> None:
    broker = Broker()
    outbox = broker.outbox(7)
    for batch in (4, 6, 7):
        outbox.put(batch, [("t", b"%d" % batch)], ())
    assert outbox.confirmed == 3
    outbox.put(8, [("t", b"8")], ())
    assert outbox.confirmed == 3  # a commit now must not drop what the broker does not have
    broker.unconfirmed -= {0, 2}  # 4 and 7
    outbox.take_confirmations()
    assert outbox.confirmed == 5
    broker.unconfirmed.clear()
    outbox.take_confirmations()
    assert (outbox.confirmed, len(outbox)) == (8, 0)


def test_identities_are_kept_until_repeats_could_have_arrived() -> None:
    broker = Broker()
    outbox = broker.outbox(5)
    outbox.put(5, [], ["1:a", "2:b"])  # known from an earlier process
    outbox.expect_repeats(3)
    outbox.put(6, [("t", b"6")], ["1:a"])
    broker.unconfirmed.clear()
    outbox.take_confirmations()
    assert outbox.forgettable < 5
    assert outbox.knows("2:b")  # comes again in the next batch
    outbox.put(7, [("t", b"7")], ["2:b", "3:c"])
    outbox.put(8, [("t", b"8")], ["4:d"])
    broker.unconfirmed.clear()
    outbox.take_confirmations()
    assert outbox.forgettable == 7
    assert not outbox.knows("1:a")
    assert not outbox.knows("2:b")
    assert outbox.knows("4:d")


def test_identities_are_kept_while_acknowledgements_are_held_back() -> None:
    """Batches 2 and 4 finish messages that are acknowledged only after batches 6 and 7."""
    broker = Broker()
    outbox = broker.outbox(0)
    for batch in range(1, 10):
        outbox.put(batch, [("t", b"%d" % batch)], [f"{batch}:x"])
        outbox.hold(None if batch == 1 or batch > 6 else 2 if batch < 6 else 4)
        if batch != 5:  # its confirmation comes with that of batch 8
            broker.unconfirmed &= {4}
        if batch == 8:
            broker.unconfirmed.clear()
        outbox.take_confirmations()
        # a batch that is sent after the acknowledgements shows, once confirmed, that the broker has them
        assert outbox.forgettable == (0 if batch == 1 else 1 if batch < 7 else 3 if batch == 7 else batch - 1)
    assert not outbox.knows("8:x")


def test_a_new_connection_pauses_forgetting() -> None:
    broker = Broker()
    outbox = broker.outbox(0)
    for batch in (1, 2, 3):
        outbox.put(batch, [("t", b"")], [f"{batch}:x"])
    broker.unconfirmed.clear()
    outbox.take_confirmations()
    assert outbox.forgettable == 2
    outbox.expect_repeats(10)
    outbox.put(4, [("t", b"")], ["4:x"])
    broker.unconfirmed.clear()
    outbox.take_confirmations()
    assert outbox.forgettable == 2
    assert outbox.knows("3:x")


def test_identified_readings_use_no_memory_while_disconnected() -> None:
    broker = Broker()
    outbox = broker.outbox(0)
    outbox.expect_repeats(2000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for batch in range(1, 5001):
            outbox.put(batch, [("t", b"")], [])
            broker.sent.clear()
            broker.unconfirmed.clear()
            outbox.take_confirmations()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outbox.confirmed == 5000
    assert after - before < 10_000, "bytes, of 5,000 batches"


def test_identities_are_bounded_although_nothing_is_published() -> None:
    outbox = Broker().outbox(0)
    outbox.expect_repeats(10)
    for batch in range(1, 100):
        outbox.put(batch, [], [f"{batch}:x", f"{batch}:y"])
    assert outbox.forgettable == 94  # ten messages came after it
    assert [outbox.knows(f"{batch}:x") for batch in (94, 95, 99)] == [False, True, True]
    outbox.expect_repeats(10)  # the connection broke: those of the batches 95 to 99 come again
    outbox.put(100, [], [f"{batch}:{name}" for batch in range(95, 99) for name in "xy"])
    assert outbox.forgettable == 94
    assert outbox.knows("99:y")
    outbox.put(101, [], ["99:x", "99:y", "101:x"])
    assert outbox.forgettable == 99
    assert [outbox.knows(name) for name in ("94:x", "99:x", "101:x")] == [False, True, True]


def test_a_restored_outbox_publishes_by_batch_and_knows_its_messages() -> None:
    broker = Broker()
    outbox = broker.outbox(7)
    outbox.restore([(4, [("t", b"4a"), ("t", b"4b")]), (6, [("t", b"6")])], ["1:a"])
    assert [payload for _, payload in broker.sent] == [b"4a", b"4b", b"6"]
    assert (len(outbox), outbox.confirmed) == (3, 3)
    assert outbox.knows("1:a")
    broker.unconfirmed.clear()
    outbox.take_confirmations()
    assert (len(outbox), outbox.confirmed) == (0, 7)


class UnreliableBroker:
    """Sends numbered messages, at most `WINDOW` unacknowledged ones. What it has not read at a cut is lost."""

    WINDOW = 10

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.unconfirmed: set[int] = set()
        self.again: list[tuple[int, int]] = []  # to be repeated
        self._unread: list[tuple[str, int]] = []  # acknowledgements and predictions, in order
        self._held: dict[int, int] = {}  # packet id -> unacknowledged message
        self._packet_id = self._sent = self._number = 0

    def publish(self, messages: Sequence[Outgoing]) -> list[int]:
        numbers = list(range(self._number, self._number + len(messages)))
        self._number += len(messages)
        self.unconfirmed.update(numbers)
        self._unread += [("prediction", number) for number in numbers]
        return numbers

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        self._unread += [("acknowledgement", packet_id) for packet_id in packet_ids]

    def read(self) -> None:
        for _ in range(self.random.randrange(len(self._unread) + 1)):
            kind, number = self._unread.pop(0)
            if kind == "acknowledgement":
                self._held.pop(number, None)
            else:
                self.unconfirmed.discard(number)

    def cut(self) -> None:
        self.read()
        self._unread = [("prediction", number) for number in sorted(self.unconfirmed)]
        self.again = list(self._held.items())

    def messages(self) -> list[tuple[int, int, bool]]:
        """(packet id, message, whether it is repeated) of the next batch."""
        found = [(*one, True) for one in self.again]
        found, self.again = found[:4], [one[:2] for one in found[4:]]
        while not self.again and len(found) < 4 and len(self._held) < self.WINDOW:
            self._packet_id = self._packet_id % 15 + 1
            if self._packet_id not in self._held:
                self._held[self._packet_id], self._sent = self._sent, self._sent + 1
                found.append((self._packet_id, self._held[self._packet_id], False))
        return found


@pytest.mark.parametrize("published", [0.0, 0.05, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_every_message_is_processed_once_over_cut_connections(seed: int, published: float) -> None:
    broker = UnreliableBroker(seed)
    outbox = Outbox(broker.publish, lambda: broker.unconfirmed, 0)
    processed: Counter[int] = Counter()
    outbox.expect_repeats(2 * broker.WINDOW)
    for batch in range(1, 5000):
        if broker.random.random() < 0.2:
            broker.cut()
            outbox.expect_repeats(2 * broker.WINDOW)
        broker.read()
        outbox.take_confirmations()
        messages = broker.messages()
        identities = [f"{packet_id}:{message}" for packet_id, message, _ in messages]
        processed.update(
            message
            for (_, message, repeated), identity in zip(messages, identities, strict=True)
            if not (repeated and outbox.knows(identity))
        )
        outbox.put(batch, [("t", b"")] if broker.random.random() < published else [], identities)
        broker.acknowledge([packet_id for packet_id, _, _ in messages])
    assert set(processed.values()) == {1}
    assert len(processed) > 1000
