"""Rows of the text protocol into lines for LOAD DATA, a buffer full at a time.

What stands between the fields becomes what stands between them in a line: a length byte becomes a tab, a packet's
header a newline.  So the bytes of most rows are never touched one by one, and none is decoded.  MySQL Internals:
"Text Resultset Row", "Length-Encoded Integer".
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from backups.engine.mysql.packets import HEADER, Places
from backups.engine.mysql.tsv import NULL, escaped

LENGTHS = ((252, 2), (253, 3))  # first byte of a field whose length takes that many more; below 251 it is the length
NOTHING = 251  # first byte of a NULL
TAB, NEWLINE, BACKSLASH = b"\t\n\\"
# Bytes that may stand for them, as they are tried: UTF-8 has no 0xF8 to 0xFF.  None that escaping writes.
STAND_INS = bytes(value for value in range(255, -1, -1) if value not in b"\t\n\\tnN")


class Rows:
    """Whole row packets that lie in `data` one after another, `starts[0]` being where the first one begins.

    There must be a byte to spare behind them.  The bytes around the fields are altered, the fields are not.
    """

    def __init__(self, data: bytearray, starts: Places, stop: int, columns: int) -> None:
        self.bytes = np.frombuffer(data, np.uint8)[starts[0] : stop + 1]
        self.starts = starts - starts[0]
        self.prefixes: list[Places] = []  # of each column: where its length stands
        self.begins: list[Places] = []
        self.ends: list[Places] = []
        self.nulls: list[Places] = []  # of each column: where its length says NULL
        self.widths: list[Places] = []  # where lengths go on
        at = self.starts + HEADER
        for _ in range(columns):
            at = self._column(at)
        if not np.array_equal(at[:-1], self.starts[1:]) or at[-1] != stop - starts[0]:
            raise ValueError("A row does not end where its packet does.")

    def __len__(self) -> int:
        return len(self.starts)

    def _column(self, at: Places) -> Places:
        """Note where this column's fields lie; return where the next ones begin."""
        first = self.bytes[at]
        length, begin, nulls = first.astype(np.intp), at + 1, at[:0]
        if first.max() >= NOTHING:
            nulls = at[first == NOTHING]
            length[first == NOTHING] = 0
            for mark, width in LENGTHS:
                those = np.flatnonzero(first == mark)
                more = [at[those] + place for place in range(1, width + 1)]
                length[those] = sum(self.bytes[place].astype(np.intp) << 8 * n for n, place in enumerate(more))
                begin[those] += width
                self.widths += more
        self.prefixes.append(at)
        self.begins.append(begin)
        self.ends.append(begin + length)
        self.nulls.append(nulls)
        return self.ends[-1]

    def column(self, number: int) -> list[bytes]:
        """One column's fields as they came; nothing for a NULL."""
        text = self.bytes.tobytes()
        places = zip(self.begins[number].tolist(), self.ends[number].tolist(), strict=True)
        return [text[begin:end] for begin, end in places]

    def lines(self) -> bytes:
        """The rows, each ending in a newline.  Written as if no field held one of LOAD DATA's characters, then counted:
        it is so in most blocks."""
        block = self._separated(TAB, NEWLINE, BACKSLASH, BACKSLASH)
        nulls = sum(map(len, self.nulls))
        between = len(self.prefixes) * len(self) - nulls
        if len(self.nulls[0]) == 0 and _separators(block) == between and _backslashes(block, nulls):
            return block.replace(b"\\", b"\t\\N") if nulls else block
        return self._escaped(block)

    def _separated(self, tab: int, newline: int, null: int, first_null: int) -> bytes:
        """The fields with these bytes around them: `null` for a tab and a NULL, `first_null` for one without a tab."""
        rewritten, kept = self.bytes, np.ones(len(self.bytes), bool)
        following = rewritten[-1]  # is the next packet's
        kept[0] = False
        for place in range(1, HEADER + 1):
            kept[self.starts + place] = False
        rewritten[self.starts[1:]] = rewritten[-1] = newline
        rewritten[self.nulls[0]], kept[self.nulls[0]] = first_null, True
        for prefixes, nulls in zip(self.prefixes[1:], self.nulls[1:], strict=True):
            rewritten[prefixes], rewritten[nulls] = tab, null
        for places in self.widths:
            kept[places] = False
        block = rewritten[kept].tobytes()
        rewritten[-1] = following
        return block

    def _escaped(self, block: bytes) -> bytes:
        """The same by bytes that no field holds, until all that is in the fields is escaped."""
        free = list(islice((value for value in STAND_INS if bytes((value,)) not in block), 4))
        if len(free) < 4:
            return self._one_by_one()
        tab, newline, null, first_null = free
        block = escaped(self._separated(tab, newline, null, first_null))
        block = block.translate(bytes.maketrans(bytes((tab, newline)), b"\t\n"))
        return block.replace(bytes((null,)), b"\t" + NULL).replace(bytes((first_null,)), NULL)

    def _one_by_one(self) -> bytes:
        columns = []
        for number, nulls in enumerate(self.nulls):
            fields = [escaped(field) for field in self.column(number)]
            for row in np.flatnonzero(np.isin(self.prefixes[number], nulls)).tolist():
                fields[row] = NULL
            columns.append(fields)
        return b"".join(b"\t".join(row) + b"\n" for row in zip(*columns, strict=True))


def _separators(block: bytes) -> int:
    """How many tabs and newlines there are: one follows the other, and what is less than a tab wraps around."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) - np.uint8(TAB) <= NEWLINE - TAB))


def _backslashes(block: bytes, wanted: int) -> bool:
    """Whether there are so many.  To see that there is none takes the least."""
    if not wanted:
        return b"\\" not in block
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == BACKSLASH)) == wanted
