"""What sources and sinks are given, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Iterable, Optional, Union

from .batch import Batch, Record
from .describe import Rejection


class Polled(Enum):
    """What a poll returns besides its records; nothing is the same as `OPEN`."""

    # More can come, whether or not something came now.
    OPEN = 0
    # Nothing ever again.
    END = 1


@dataclass(frozen=True)
class Task:
    """The share of the work that one task does."""

    index: int = 0
    # What `plan` said.
    assignment: str = ""


@dataclass(frozen=True)
class Budget:
    """How much a poll may return; one record may exceed the bytes."""

    bytes: int
    records: int


@dataclass(frozen=True)
class Position:
    """A point in the upstream's own order."""

    # The plugin's own form.
    document: str
    # What a person reads.
    text: str


@dataclass(frozen=True)
class TopicPartition:
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True)
class Assigned:
    """A partition that is now this task's."""

    partition: TopicPartition
    # The topic's identity: one that was deleted and created again is another one.
    topic_id: str


@dataclass(frozen=True)
class Delivery:
    """Records of one partition, in the order of their offsets."""

    partition: TopicPartition
    topic_id: str
    # The first offset that it covers, including records that were dropped on the way.
    first_offset: int
    # The offset after the last that it covers: the position moves here even when there is no record.
    next_offset: int
    batch: Batch


@dataclass(frozen=True)
class Written:
    """What became of a delivery."""

    is_durable: bool
    rejections: tuple[tuple[int, Rejection], ...] = ()

    @classmethod
    def durable(cls) -> Written:
        """It is safe, with everything accepted before."""
        return cls(True)

    @classmethod
    def accepted(cls) -> Written:
        """It is taken; the next flush makes it safe."""
        return cls(False)

    @classmethod
    def rejected(cls, records: Iterable[tuple[Union[Record, int], Rejection]]) -> Written:
        """These records, or their indexes, cannot be taken, now or ever. Nothing of the delivery may count: it comes again
        without them."""
        return cls(False, tuple((it if isinstance(it, int) else it.index, why) for it, why in records))


class Taken:
    """What has become of the deliveries of a sink: a flush makes safe everything that was accepted."""

    def __init__(self, sink: Any):
        self.sink = sink
        self._next: dict[TopicPartition, int] = {}

    def write(self, delivery: Delivery) -> Written:
        written = self.sink.write(delivery)
        if not isinstance(written, Written):
            raise TypeError("`write` returns a Written, such as `Written.durable()`")
        if not written.rejections:
            if not written.is_durable and not hasattr(self.sink, "flush"):
                raise TypeError("a sink without `flush` makes every delivery durable at once")
            self._next[delivery.partition] = delivery.next_offset
        return written

    def flush(self) -> dict[TopicPartition, int]:
        """The durable next offset of each partition written so far."""
        getattr(self.sink, "flush", lambda: None)()
        return self._next

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._next.pop(partition, None)


def polled(source: Any, budget: Budget, out: Any) -> Optional[Polled]:
    """One poll into `out`; `None` where it has brought something, and else whether anything can come."""
    said = source.poll(budget, out)
    if said is not None and not isinstance(said, Polled):
        raise TypeError("`poll` returns nothing, or `Polled.END` where nothing comes ever again")
    # What it brought comes first; the next poll says the end again.
    return None if len(out) or out.rejected else said or Polled.OPEN
