"""A restore from beginning to end: snapshot, then slices up to the moment, then proof.

Whatever breaks, a restore is repeated from its beginning: it drops what is there, so nothing is applied twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import cast

import pymysql

from backups.engine.ahead import ahead
from backups.engine.archive import Archive
from backups.engine.errors import Corrupt, EngineError, Refused
from backups.engine.manifest import Manifest
from backups.engine.mysql import target
from backups.engine.mysql.accounts import require as require_accounts
from backups.engine.mysql.accounts import restore as restore_accounts
from backups.engine.mysql.load import LoadedCounts, load
from backups.engine.mysql.replay import ReplayResult, replay
from backups.engine.mysql.server import ServerConfig, explain
from backups.engine.plan import utc
from backups.engine.types import Plan, Run, SliceIndex

AHEAD = 8  # pieces of slices, of a megabyte each, that are fetched before they are asked for
TELL_SECONDS = 10  # between two lines of the log


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What the target holds now, and what was left out on purpose.

    rows: of the snapshot.  transactions: replayed after it, `last` being the identity of the newest ("" for none).
    skipped: account statements and changes to system schemas.  prepared: XA branches that were open at the moment.
    conflicts: batches of changes that the target refused in their short form and got one by one instead.
    broken: sentences about what is not as it was at the source: views that were broken there already, values that
    the backup could not carry exactly, accounts that the target refused.
    """

    backup: str
    schemas: int
    tables: int
    rows: int
    transactions: int
    last: str
    skipped: int
    prepared: tuple[str, ...]
    broken: tuple[str, ...]
    conflicts: int = 0


def restore(
    config: ServerConfig,
    plan: Plan,
    manifest: Manifest,
    archives: Mapping[str, Archive],
    *,
    replace: bool,
    remember: Callable[[dict[str, str]], None],
    run: Run,
    threads: int = 4,
    accounts: bool = False,
    compact: bool = True,
) -> RestoreResult:
    """Bring the target to the plan's moment: afterwards it holds exactly the schemas of that moment.

    archives: by storage name.  replace: the target's user schemas may be dropped.
    accounts: put back, too, the backup's accounts that the target does not have.
    compact: replay many changes of a row as one where that gives the same result; False for each one by one.
    remember: gets, before anything is changed, the settings to give to `put_back` should this run not do it itself.

    Raises Refused before anything was touched; later also Corrupt, Gap, Transient, Stopped: their `meaning` says
    what the target holds then.
    """
    _belongs(plan, manifest)
    state = target.inspect(config)
    target.refuse(state, manifest, replace=replace)
    if accounts:
        require_accounts(config, manifest.accounts)
    with _prepared(config, remember, run):
        run.log(f"Loading backup {manifest.name}: {manifest.rows:,} rows, {len(manifest.schemas)} schemas.")
        archive = archives[plan.backup.storage]
        loaded = load(config, archive, manifest, threads=threads, replace=replace, run=run)
        _all_loaded(loaded, manifest)
        replayed = _replay(config, plan, manifest, archives, run, compact)
        refused = restore_accounts(config, archive, manifest.accounts, run) if accounts and manifest.accounts else ()
    for sentence in manifest.inexact:
        run.log(sentence)
    for name in replayed.prepared:
        run.log(f"XA branch {name} was prepared, not committed, at this moment: it is not applied.")
    if replayed.skipped:
        run.log(f"{replayed.skipped} changes to accounts and system schemas were left out.")
    return RestoreResult(
        backup=manifest.backup,
        schemas=loaded.schemas,
        tables=loaded.tables,
        rows=loaded.rows,
        transactions=replayed.transactions,
        last=replayed.last,
        skipped=replayed.skipped,
        prepared=replayed.prepared,
        broken=loaded.broken + manifest.inexact + refused,
        conflicts=replayed.conflicts,
    )


def _belongs(plan: Plan, manifest: Manifest) -> None:
    if plan.backup.id != manifest.backup or dict(plan.backup.position) != dict(manifest.position):
        raise Corrupt(
            f"The plan begins with another backup than {manifest.name}, or from another position.",
            next_step="Rebuild the catalogue from the storage, then plan again.",
        )


@contextmanager
def _prepared(config: ServerConfig, remember: Callable[[dict[str, str]], None], run: Run) -> Iterator[None]:
    """The target's settings as a restore needs them, and back as they were."""
    before = target.prepare(config, remember)
    try:
        yield
    except BaseException:
        try:
            target.put_back(config, before)
        except EngineError as error:  # the first error counts, and who was told the settings tries again
            run.log(f"The target's settings could not be put back yet: {error}")
        raise
    target.put_back(config, before)


def _all_loaded(loaded: LoadedCounts, manifest: Manifest) -> None:
    tables = sum(len(schema.tables) for schema in manifest.schemas)
    if (loaded.schemas, loaded.tables, loaded.rows) != (len(manifest.schemas), tables, manifest.rows):
        raise Refused(
            f"The target took {loaded.rows:,} rows in {loaded.tables} tables; "
            f"the backup has {manifest.rows:,} in {tables}.",
            meaning="It does not hold what the backup holds: do not use it.",
        )


def _replay(
    config: ServerConfig, plan: Plan, manifest: Manifest, archives: Mapping[str, Archive], run: Run, compact: bool
) -> ReplayResult:
    if plan.slices:
        run.log(f"Replaying {len(plan.slices)} slices.")
    try:
        return replay(
            config,
            _slices(plan, archives, run),
            start=manifest.position,
            stop=plan.position,
            run=run,
            source={**manifest.settings, "system_time_zone": manifest.system_time_zone},
            total=sum(point.count for point in plan.slices),
            compact=compact,
        )
    except pymysql.MySQLError as error:
        raise explain(error, "Replaying") from error


def _slices(plan: Plan, archives: Mapping[str, Archive], run: Run) -> Iterator[tuple[SliceIndex, Iterable[bytes]]]:
    """The slices as the bucket holds them, fetched ahead; tells which moment is reached."""
    told = time.monotonic()
    with closing(ahead(_fetched(plan, archives), AHEAD)) as items:
        for number, point in enumerate(plan.slices, 1):
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                reached = f" The moment {utc(point.first_us)} UTC is reached." if point.count else ""
                run.log(f"Slice {number} of {len(plan.slices)}.{reached}")
            index = cast(SliceIndex, next(items))
            chunks = _until_end(items)
            yield index, chunks
            for _ in chunks:
                pass  # whatever follows the last transaction


def _fetched(plan: Plan, archives: Mapping[str, Archive]) -> Iterator[SliceIndex | bytes | None]:
    """Of each slice its index, which must be as it was planned with, the pieces of its data, and None."""
    for point in plan.slices:
        archive = archives[point.storage]
        index = archive.read_slice(point.key)
        if (dict(index.start), dict(index.end)) != (dict(point.start), dict(point.end)):
            raise Corrupt(
                f"Slice {point.key} is not the one that the restore was planned with.",
                next_step="Rebuild the catalogue from the storage, then plan again.",
            )
        yield index
        yield from archive.read_data(index.data)
        yield None


def _until_end(items: Iterator[SliceIndex | bytes | None]) -> Iterator[bytes]:
    for item in items:
        if not isinstance(item, bytes):
            return
        yield item
