"""The engine's errors: what happened, what it means for the data, what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class EngineError(Exception):
    """Base of all the engine raises on purpose.

    what: what happened.  meaning: what that means for the person's data.  next_step: what to do.
    """

    transient = False

    def __init__(self, what: str, *, meaning: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.meaning = meaning
        self.next_step = next_step

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.meaning, self.next_step) if part)


class Transient(EngineError):
    """Trying again later may well succeed: a connection broke, a store said 'slow down'."""

    transient = True


class Refused(EngineError):
    """Trying again changes nothing until a person changes something: settings, privileges, a target."""


class Corrupt(EngineError):
    """Bytes are not what their hash, checksum or format says."""


class Gap(EngineError):
    """Binlog between two positions is lost or unreadable: the timeline ends at the first."""


class Forked(Gap):
    """The server has lost, or never had, transactions that were already shipped."""


class NotCovered(EngineError):
    """The moment asked for is not restorable; the message says which range is."""


class LeaseLost(EngineError):
    """Another worker has taken this work over; stop without a trace."""


class Stopped(EngineError):
    """`should_stop()` said so: a person's cancel or a worker's stop."""


def raise_first(errors: Sequence[BaseException | None]) -> None:
    """The cause, not the `Stopped` that it made of the other threads."""
    raised = [error for error in errors if error is not None]
    for error in raised:
        if not isinstance(error, Stopped):
            raise error
    if raised:
        raise raised[0]
