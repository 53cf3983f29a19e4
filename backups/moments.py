"""Moments over the catalogue: what happened when, and what a restore to a moment would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from backups.engine import moments, plan
from backups.engine.archive import Archive
from backups.engine.errors import NotCovered
from backups.engine.manifest import Manifest
from backups.engine.types import Moment, Plan, SliceIndex, SlicePoint, Transaction
from backups.models import Database, Recoverable, Restore, Timeline
from backups.models.timeline import from_us

DDL_SHOWN = 400  # characters


def loader(archives: dict[str, Archive]) -> Callable[[SlicePoint], SliceIndex]:
    return lambda point: archives[point.storage].read_slice(point.key)


def transactions(
    database: Database, since_us: int, until_us: int, table: str = "", kind: str = ""
) -> Iterator[tuple[Timeline, Transaction]]:
    """What happened from `since_us` to `until_us`, timeline by timeline, read from the indexes in the bucket."""
    load = loader(database.archives())
    for timeline in database.timelines.order_by("number"):
        points = list(plan.cover(plan.in_order(timeline.slice_points())))
        for transaction in moments.transactions(points, load, since_us, until_us, table, kind):
            yield timeline, transaction


def resolve(restore: Restore) -> tuple[Moment, Plan]:
    """The exact transaction a restore ends with, and the proof that it can be reached; raises NotCovered."""
    source = restore.source
    spans = source.ranges_of(restore.timeline) if restore.timeline else source.ranges()
    if not spans and restore.timeline:
        raise NotCovered(
            f"Nothing of {restore.timeline} is restorable: it has no backup.", next_step="Choose another moment."
        )
    if not spans:
        raise NotCovered(f"Nothing of {source} is restorable yet.", next_step="Take a backup.")
    if restore.moment == Restore.BACKUP and restore.backup is None:
        raise NotCovered("The backup was deleted meanwhile.", next_step="Choose another moment.")
    if restore.moment == Restore.BACKUP:
        moment, timeline = Moment(restore.backup.position, None, None), restore.backup.timeline
    else:
        moment, timeline = _find(restore, spans)
    chosen = str(restore.backup_id) if restore.backup_id else ""
    points = timeline.backup_points(), timeline.slice_points()
    return moment, plan.plan(*points, moment.position, source.module.at_or_before, backup=chosen)


def _find(restore: Restore, spans: list[Recoverable]) -> tuple[Moment, Timeline]:
    """Newest history first: after a restore in place the same time or GTID may lie on two timelines."""
    load = loader(restore.source.archives())
    refusal: NotCovered | None = None
    for span in reversed(spans):
        if restore.moment == Restore.TIME and restore.moment_us < span.first_us:
            continue
        try:
            return _on(restore, span, load), span.timeline
        except NotCovered as error:
            refusal = refusal or error
    what = refusal.what if refusal else f"{from_us(restore.moment_us or 0)} lies before the oldest backup."
    raise NotCovered(
        what,
        meaning="Restorable: " + "; ".join(map(str, spans)) + ".",
        next_step="Choose a moment in one of these ranges.",
    )


def _on(restore: Restore, span: Recoverable, load: Callable[[SlicePoint], SliceIndex]) -> Moment:
    points, module = span.timeline.slice_points(), restore.source.module
    if restore.moment == Restore.LATEST:
        return moments.latest(points, load, span.floor, module)
    if restore.moment == Restore.GTID:
        return moments.at_gtid(points, load, restore.moment_gtid, span.floor, module)
    if restore.moment == Restore.BEFORE:
        return moments.before_gtid(points, load, restore.moment_gtid, span.floor, module)
    known = span.last_us if span.live else None
    return moments.at_time(points, load, restore.moment_us, span.floor, module, known)


def review(restore: Restore) -> dict[str, Any]:
    """All that a person sees before a restore starts; raises EngineError where it cannot be done."""
    moment, found = resolve(restore)
    archive = restore.source.archives()[found.backup.storage]
    manifest = archive.read_manifest(found.backup.timeline, found.backup.id)
    return {
        "position": dict(found.position),
        "last": _shown(moment.last),
        "next": _shown(moment.next),
        "backup": _backup_shown(found, manifest),
        "timeline": found.backup.timeline,
        "slices": len(found.slices),
        "bytes": manifest.size + sum(point.size for point in found.slices),
        "seconds": _estimate(restore, found, manifest),
        **_target(restore, manifest),
    }


def _backup_shown(found: Plan, manifest: Manifest) -> dict[str, Any]:
    return {
        "id": found.backup.id,
        "name": manifest.name,
        "view_us": found.backup.view_us,
        "storage": found.backup.storage,
        "rows": manifest.rows,
        "schemas": [schema.name for schema in manifest.schemas],
    }


def _shown(transaction: Transaction | None) -> dict[str, Any] | None:
    if transaction is None:
        return None
    return {
        "time_us": transaction.time_us,
        "identity": transaction.identity,
        "tables": [f"{change.schema}.{change.table}" for change in transaction.changes],
        "changes": [asdict(change) for change in transaction.changes],
        "ddl": transaction.ddl[:DDL_SHOWN],
    }


def _estimate(restore: Restore, found: Plan, manifest: Manifest) -> int | None:
    """Seconds, from the newest finished restore of this source; None where there was none."""
    past = restore.source.restores.filter(state=Restore.SUCCEEDED, plan__isnull=False).first()
    if past is None or not past.plan.get("bytes") or not past.started_at:
        return None
    seconds = (past.finished_at - past.started_at).total_seconds()
    size = manifest.size + sum(point.size for point in found.slices)
    return max(1, round(seconds * size / past.plan["bytes"]))


def _target(restore: Restore, manifest: Manifest) -> dict[str, Any]:
    """What stands on the target, and whether it can take this restore."""
    module, config = restore.target.module, restore.target.config()
    state = module.inspect_target(config)
    checks = module.preflight_target(config, manifest, None)
    return {
        "in_place": state.identity.server_uuid == manifest.server,
        "loses": [{"schema": name, "rows": rows} for name, rows in state.schemas],
        "checks": [{"name": c.name, "state": c.state, "message": c.message, "fix": c.fix} for c in checks],
    }


def planned(restore: Restore) -> Plan:
    """The plan for exactly the place that was reviewed, computed anew from the rows."""
    timeline = Timeline.objects.get(pk=restore.plan["timeline"])
    at_or_before = restore.source.module.at_or_before
    points = timeline.backup_points(), timeline.slice_points()
    return plan.plan(*points, restore.plan["position"], at_or_before, backup=restore.plan["backup"]["id"])
