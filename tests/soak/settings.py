"""Everest's own settings; small tables are read as large ones are: by several processes, in ranges."""

from backups.engine.mysql import ranges
from everest.settings import *  # noqa: F403

ranges.SMALL, ranges.RANGE = 0, 1 << 15
