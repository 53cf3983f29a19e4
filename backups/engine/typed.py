"""That a record's fields hold what they are declared to hold: its hash proves that nobody changed it, not that."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def typed(entry: T) -> T:
    """The dataclass itself; TypeError for a field, or an item of a tuple of texts, of another type."""
    of: Any = type(entry)
    for name, kind, item in _fields(of):
        value = getattr(entry, name)
        if not isinstance(value, kind) or (item and not all(isinstance(one, item) for one in value)):
            raise TypeError(f"{name} is a {type(value).__name__}")
        if kind is int and (isinstance(value, bool) or value < 0):
            raise TypeError(f"{name} is {value}")
    return entry


@cache
def _fields(of: type) -> list[tuple[str, Any, Any]]:
    """Name, type, and type of the items of a tuple, of each field."""
    return [
        (name, get_origin(kind) if get_origin(kind) and not _is_union(kind) else kind, _item(kind))
        for name, kind in get_type_hints(of).items()
    ]


def _is_union(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _item(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def whole(numbers: Iterable[Any], *more: type) -> None:
    """TypeError where something else than integers (or None, if `more` says so) is among them."""
    if found := {type(number) for number in numbers} - {int, *more}:
        raise TypeError(f"numbers of type {', '.join(one.__name__ for one in found)}")
