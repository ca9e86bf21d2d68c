"""Messages to predictions, slice by slice: no message can make the loop silent for long, or end the service twice.

A slice is bounded by the steps that its readings cause. If a batch does not fit, its rest waits; messages of other
streams go first. If processing raises, the streams go back to their stored states, and each message is tried alone; one
that raises again is set aside.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple, TypeVar

from edge_lstm.foundation.errors import BackendError, EdgeLstmError
from edge_lstm.mqtt.client.received import Message
from edge_lstm.service.intake.message_reader import MessageReader
from edge_lstm.service.intake.name_limit import NameLimit
from edge_lstm.service.intake.sequence_gaps import SequenceGaps
from edge_lstm.service.processing.outbox import Outgoing
from edge_lstm.service.processing.slices import Part, Slices
from edge_lstm.service.processing.suspects import Suspects
from edge_lstm.streaming.predictor import Predictor
from edge_lstm.streaming.reading import Command, Reading, Refusal
from edge_lstm.streaming.step_results import Steps

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_STEPS = 2000  # of a slice, about: half a second of steps of single streams on a small board
_MOST_IN_A_ROW = 20  # messages that raise; beyond, they are not the cause


class Slice(NamedTuple):
    """What one commit takes."""

    readings: Sequence[Reading]  # that were stepped
    refusals: Sequence[Refusal]
    predictions: Sequence[Outgoing]
    steps: int
    finished: Sequence[Message]  # all their readings are stepped
    set_aside: Sequence[tuple[Message, str]] = ()  # of those that are finished, with the reason
    commands: Sequence[Command] = ()  # of operators


class _Stepped(NamedTuple):
    """What was stepped of readings."""

    readings: Sequence[Reading] = ()
    done: int = 0  # readings, from the first one on: stepped, or refused for the name of their stream
    steps: int = 0
    predictions: Sequence[Outgoing] = ()


class StoppedError(EdgeLstmError):
    """The service ends within a slice, which is not stepped as a whole: its messages come again."""


class Processor:
    """Steps the readings of messages. Its caller commits each slice before it asks for the next one."""

    def __init__(
        self,
        reader: MessageReader,
        predictor: Predictor,
        encode: Callable[[Steps], list[Outgoing]],
        names: NameLimit,
        gaps: SequenceGaps | None,
        slices: Slices,
        suspects: Suspects,
        evict: Callable[[str], None],
        between: Callable[[], None],
        next_batch: Callable[[], int],
    ) -> None:
        """`encode` gives the messages of steps; `evict` removes a stream, whose row is in the store, from memory.

        `between` is called between the steps of a slice; what it raises ends the slice. `next_batch`: the number of
        the next commit.
        """
        self._reader, self._predictor, self._encode = reader, predictor, encode
        self._names, self._gaps = names, gaps
        self._slices, self._suspects, self._evict = slices, suspects, evict
        self._between, self._next_batch = between, next_batch
        self._alone = 0  # messages to come that are processed alone, since one raised
        self._raised_in_a_row = 0
        self._refusals: list[Refusal] = []  # that no slice has yet
        self._set_aside: list[tuple[Message, str]] = []  # the same

    def process(self, messages: list[Message]) -> Iterator[Slice]:
        """A slice of new messages, and what is due with it; `go_on` gives the rest."""
        for group in self._suspects.groups(messages):
            self._suspects.begin(self._next_batch(), group)
            if self._slices or self._alone or self._suspects.has_faulty(group):
                self._read(group)
                self._suspects.interrupt()
                yield from self._slice(others=True)
            else:
                yield from self._at_once(group)
        self._slices.note_received(len(messages))

    def go_on(self) -> Iterator[Slice]:
        """A slice of the messages that wait longest, and one of other streams."""
        yield from self._slice(others=False)
        yield from self._slice(others=True)

    def _at_once(self, messages: list[Message]) -> Iterator[Slice]:
        """The slice of all these messages, which is usual; or of the first of them."""
        readings = self._tried(lambda: self._reader.readings(messages))
        stepped = readings if isinstance(readings, Exception) else self._step(readings, self._reader.redelivered, True)
        if isinstance(readings, Exception) or isinstance(stepped, Exception):
            self._reader.undo()
            self._read(messages)
            self._alone = len(messages)
            yield from self._slice(others=False)
            return
        finished: Sequence[Message] = messages
        if stepped.done < len(readings):
            finished = self._slices.take(self._slices.add(messages, readings, self._reader), stepped.done)
        self._note_stepped(messages, finished)
        yield Slice(stepped.readings, self._reader.refusals, stepped.predictions, stepped.steps, finished)

    def _slice(self, others: bool) -> Iterator[Slice]:
        """A slice of messages that wait. `others`: only of streams that the messages do not have that were cut."""
        if others and self._alone:
            return
        chosen = self._tried_together(self._slices.choose(others, alone=self._alone > 0))
        if not chosen:
            self._alone = 0
            if self._set_aside or (self._slices and not others):
                yield self._with_the_rest(_Stepped(), [])
            return
        messages = [part.message for part in chosen]
        readings = [reading for part in chosen for reading in part.readings]
        self._suspects.begin(self._next_batch(), messages)
        again = {stream for part in chosen if part.message.repeated for stream in part.streams}
        stepped = self._step(readings, again)
        if isinstance(stepped, Exception):
            self._suspects.interrupt()
            if len(chosen) > 1:
                self._alone = len(chosen)
            else:
                self._alone = max(self._alone - 1, 0)
                self._slices.drop(chosen[0])
                self._put_aside(chosen[0].message, self._described(stepped))
            yield from self._slice(others=False)
            return
        finished = self._slices.take(chosen, stepped.done)
        self._alone = max(self._alone - len(finished), 0)
        self._note_stepped(messages, finished)
        yield self._with_the_rest(stepped, finished)

    def _with_the_rest(self, stepped: _Stepped, finished: list[Message]) -> Slice:
        """A slice, with refusals and set-aside messages that no slice has yet."""
        refusals, self._refusals = self._refusals, []
        set_aside, self._set_aside = self._set_aside, []
        return Slice(stepped.readings, refusals, stepped.predictions, stepped.steps, finished, set_aside)

    def _note_stepped(self, messages: Sequence[Message], finished: Sequence[Message]) -> None:
        self._raised_in_a_row = 0
        self._suspects.end(messages, finished)

    def _tried_together(self, parts: list[Part]) -> list[Part]:
        """The first parts, without a suspect among others."""
        for index, part in enumerate(parts):
            if self._suspects.is_alone(part.message):
                return parts[: max(index, 1)]
        return parts

    def _read(self, messages: Sequence[Message]) -> None:
        """Add messages to those that wait. One that raises is set aside."""
        for message in messages:
            fault = self._suspects.fault(message)
            readings: list[Reading] = []
            if fault is None:
                found = self._tried(functools.partial(self._reader.readings, [message]))
                if isinstance(found, Exception):
                    fault = self._described(found)
                else:
                    readings = found
            if fault is None:
                self._slices.add([message], readings, self._reader)
                self._refusals += self._reader.refusals
                if self._gaps is not None:
                    self._gaps.add(readings)
            else:
                self._slices.add_unread(message)
                self._put_aside(message, fault)

    def _described(self, error: Exception) -> str:
        """Why a message is set aside. Raises the error again if many different messages raised one after another."""
        self._raised_in_a_row += 1
        if self._raised_in_a_row > _MOST_IN_A_ROW:
            raise error
        return f"it raised {type(error).__name__}: {error}"

    def _put_aside(self, message: Message, reason: str) -> None:
        self._suspects.set_aside(message, reason)
        self._set_aside.append((message, reason))

    def _step(self, readings: list[Reading], again: Collection[str], count_gaps: bool = False) -> _Stepped | Exception:
        """What was stepped of the readings, from the first one on.

        `again`: streams whose messages the broker has sent again. After an exception the streams are unchanged.
        """
        self._predictor.watch.redelivered = again

        def step() -> _Stepped:
            if count_gaps and self._gaps is not None:
                self._gaps.add(readings)  # first: it asks for the last number of a stream
            admitted = self._names.admit(readings)
            if not admitted:
                return _Stepped(done=self._names.stepped(0))
            steps, count = self._predictor.feed_slice(admitted, MOST_STEPS, self._between)
            predictions = [] if steps is None else self._encode(steps)
            done = self._names.stepped(count)  # last: nothing raises after it
            return _Stepped(admitted[:count], done, 0 if steps is None else len(steps.order), predictions)

        return self._tried(step, readings)

    def _tried(self, work: Callable[[], T], readings: Sequence[Reading] = ()) -> T | Exception:
        """The result, or an exception that a message may have caused; others are raised.

        Then what the streams of these readings stepped in memory is forgotten.
        """
        try:
            return work()
        except Exception as error:
            for stream in {reading.stream for reading in readings}:
                self._evict(stream)
            if isinstance(error, EdgeLstmError) and not isinstance(error, BackendError):
                raise
            log.error("processing raised, its messages are tried alone", exc_info=error)
            return error
