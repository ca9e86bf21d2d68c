"""The outbox: which predictions and which message identities may be dropped."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

from edge_lstm.service.outbox import Outbox, Outgoing


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
