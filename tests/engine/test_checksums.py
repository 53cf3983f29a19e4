"""Many checksums, proven at once, are right where each is."""

import random

import numpy as np
import pytest

from backups.engine.mysql.checksums import RUN, right
from tests.engine.played import sealed


@pytest.mark.parametrize("seed", range(60))
def test_the_first_wrong_one_is_found(seed: int) -> None:
    chance = random.Random(seed)
    events = [sealed(chance.randbytes(chance.choice((23, 94, 404, RUN + 4, 3 * RUN + 4))), 4) for _ in range(seed * 3)]
    wrong = chance.randrange(len(events) + 1)
    if wrong < len(events):
        event = bytearray(events[wrong])
        event[chance.randrange(len(event))] ^= 1 << chance.randrange(8)
        events[wrong] = bytes(event)
    ends = np.cumsum([len(event) for event in events], dtype=np.int64)
    assert right(memoryview(b"".join(events)), ends) == wrong


def test_two_that_changed_places_with_their_checksums_are_wrong() -> None:
    first, second = sealed(bytes(34), 4), sealed(bytes(range(34)), 4)
    mixed = first[:-4] + second[-4:] + second[:-4] + first[-4:]
    assert right(memoryview(mixed), np.array([34, 68])) == 0
