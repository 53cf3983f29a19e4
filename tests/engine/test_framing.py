"""Events are found in a buffer as by going from packet to packet, whatever their bytes look like."""

import mmap

from hypothesis import given
from hypothesis import strategies as st

from backups.engine.mysql.framing import STEP, framed
from backups.engine.mysql.memory import Memory


def packet(body: bytes, told: int = 0) -> bytes:
    """As a server sends an event.  told: what the event says more than its size."""
    size = 19 + len(body)
    event = bytes(9) + (size + told).to_bytes(4, "little") + bytes(6) + body
    return (size + 1).to_bytes(3, "little") + b"\7\0" + event


def walked(data: bytes, at: int) -> list[tuple[int, int]]:
    found = []
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 3], "little")
        start, at = at + 5, at + 4 + size
        told = int.from_bytes(data[start + 9 : start + 13], "little")
        if at > len(data) or told + 1 != size or told < 23 or data[start - 1]:
            break
        found.append((start, told))
    return found


def found_in(data: bytes, at: int = 0) -> list[tuple[int, int]]:
    buffer = mmap.mmap(-1, len(data) + 256)
    buffer[: len(data)] = data
    starts, sizes = framed(Memory(memoryview(buffer)), at, len(data))
    return list(zip(starts.tolist(), sizes.tolist(), strict=True))


bodies = st.one_of(
    st.binary(min_size=4, max_size=60),
    st.lists(st.binary(min_size=4, max_size=40).map(packet), min_size=1, max_size=4).map(b"".join),  # looks like some
    st.lists(st.sampled_from([b"\1\0\0\0", bytes(4)]), min_size=4, max_size=40).map(b"".join),
)
packets = st.one_of(bodies.map(packet), bodies.map(lambda body: packet(body, 1)), st.just(b"\1\0\0\1\xfe"))


@given(st.lists(bodies.map(packet), max_size=30), st.lists(packets, max_size=3), st.integers(0, 40))
def test_as_by_going_from_packet_to_packet(first: list[bytes], more: list[bytes], cut: int) -> None:
    data = b"".join([*first, *more])
    data = data[: max(len(data) - cut, 0)]
    assert found_in(data) == walked(data, 0)
    assert found_in(b"xyz" + data, 3) == walked(b"xyz" + data, 3)


def test_none_is_overlooked_where_one_look_ends_and_the_next_begins() -> None:
    data = b"".join(packet(bytes(4 + number % 11)) for number in range(5 * STEP // 32))
    assert found_in(data) == walked(data, 0) and len(data) > 3 * STEP
