"""Moments as people type them, in their zone."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TYPED = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.IGNORECASE)


def read_moment(text: str, zone: ZoneInfo) -> int:
    """Microseconds since the epoch of "2026-11-22 18:30:05.25" in `zone`, or with Z, UTC or +01:00 behind it.

    ValidationError where it cannot be read, or where the clocks of that zone show it never or twice.
    """
    found = TYPED.fullmatch(text.strip())
    if not found:
        raise ValidationError("Write it as 2026-11-22 18:30:05 (24 hours; fractions of a second are allowed).")
    day, time, offset = found.groups()
    try:
        offset = {"Z": "+00:00", "UTC": "+00:00"}.get((offset or "").upper(), offset or "")
        moment = datetime.fromisoformat(f"{day} {padded(time)}{offset}")
    except ValueError as error:
        raise ValidationError(f"There is no such date or time: {error}.") from None
    return in_microseconds(moment if offset else localised(moment, zone))


def padded(time):
    """Python 3.11 reads fractions of three or six digits only."""
    whole, dot, fraction = time.partition(".")
    return f"{whole}.{fraction:0<6}" if dot else whole


def localised(naive, zone):
    """A wall-clock time of `zone` as an instant; refused where the clocks skip or repeat it."""
    first, second = (naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != naive:
        raise ValidationError(f"In {zone.key} the clocks skipped this time. Choose one before or after the change.")
    choices = " or ".join(f"{naive:%H:%M:%S}{moment:%z}" for moment in (first, second))
    raise ValidationError(f"In {zone.key} the clocks showed this time twice. Say which one: {choices}.")


def from_us(time_us) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


def in_microseconds(moment) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
