"""What Everest claims, held against what the writers know."""

from __future__ import annotations

import random
import re
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from backups import moments
from backups.engine.errors import EngineError
from backups.models import Backup, Restore
from backups.models.timeline import Recoverable, to_us
from storages.stores import StoreError
from tests.soak.everest import Everest
from tests.soak.truth import History, Truth, Written, differences
from tests.soak.writers import read_state

END_OF_TIME = 2**62
BACK = 90_000_000  # microseconds before the last look at which the next one begins
NOTED = 60.0  # seconds in which a writer notes what it committed: its server may be down meanwhile
LOOKS = 5  # tries of one look, where faults are in its way


@dataclass(frozen=True)
class Listed:
    """A transaction as Everest lists it, and the writers' own note of it."""

    timeline: str
    time_us: int
    written: Written
    history: History

    def __str__(self) -> str:
        return f"{self.written.identity} of {self.time_us} on {self.timeline}"


class Claims:
    """Looks at the timelines, and keeps what they listed for restores to choose from."""

    def __init__(self, everest: Everest, truth: Truth) -> None:
        self.everest, self.truth = everest, truth
        self.looked_us = 0
        self.known: list[Listed] = []

    def look(self, everything: bool = False) -> list[str]:
        """What is claimed and is not so; [] where every claim holds."""
        for _ in range(LOOKS - 1):
            try:
                return self._look(0 if everything else self.looked_us - BACK)
            except (EngineError, StoreError):  # a fault; or retention deleted what was just to be read
                time.sleep(2)
        return self._look(0 if everything else self.looked_us - BACK)

    def _look(self, since: int) -> list[str]:
        now = time.time_ns() // 1000
        database = self.everest.now
        spans = database.ranges()
        wrong: list[str] = []
        listed: list[Listed] = []
        seen: dict[str, list[Any]] = {}
        for timeline, transaction in moments.transactions(database, since, END_OF_TIME):
            seen.setdefault(str(timeline.pk), []).append(transaction)
        for timeline_id, transactions in seen.items():
            found, lines = self._noted(timeline_id, transactions)
            wrong += lines + _not_in_a_row(found)
            listed += found
        wrong += self._missing(spans, self.everest.now.ranges(), listed, since)
        self.looked_us, self.known = now, listed
        return wrong

    def _noted(self, timeline: str, transactions: list[Any]) -> tuple[list[Listed], list[str]]:
        found, wrong = [], []
        deadline = time.monotonic() + NOTED
        for one in transactions:
            while (pair := self.truth.find(one.identity, one.time_us)) is None and time.monotonic() < deadline:
                time.sleep(0.1)
            if pair is None:
                wrong.append(f"{one.identity} at {one.time_us} is listed, and nobody wrote it")
            else:
                found.append(Listed(timeline, one.time_us, pair[1], pair[0]))
        return found, wrong

    def _missing(
        self, before: list[Recoverable], after: list[Recoverable], listed: list[Listed], since: int
    ) -> list[str]:
        """Transactions within a claimed span that its timeline does not list.  Retention may shorten one meanwhile."""
        wrong = []
        first = {}
        for span in after:
            timeline = str(span.timeline.pk)
            first[timeline] = min(span.first_us, first.get(timeline, span.first_us))
        for span in before:
            timeline = str(span.timeline.pk)
            if timeline not in first:
                continue
            known = {one.written.identity for one in listed if one.timeline == timeline}
            start = max(first[timeline], span.first_us, since)
            for one in self.truth.within(start, span.last_us):
                if one.identity not in known:
                    wrong.append(f"{one.identity} of {one.began_us} lies in the claimed span {span}, and is not listed")
        return wrong

    def unclaimed(self, losses: list[tuple[int, int]]) -> tuple[int, list[str]]:
        """Transactions since the first restorable moment that no span holds: how many; those that no loss explains."""
        spans = self.everest.now.ranges()
        claimed = sorted((span.first_us, span.last_us) for span in spans)
        count, wrong = 0, []
        for (_, end), (start, _) in pairwise(claimed):
            lost = self.truth.within(end + 1, start - 1)
            count += len(lost)
            if lost and not any(end - 1 <= ended and began <= start for began, ended in losses):
                wrong.append(f"{len(lost)} transactions between {end} and {start} are not recoverable, without a cause")
        return count, wrong

    def false_ends(self, losses: list[tuple[int, int]]) -> list[str]:
        """Timelines that were ended though nothing was lost."""
        wrong = []
        for one in self.everest.source.timelines.exclude(ended_at=None):
            first, last = to_us(one.started_at), to_us(one.ended_at)
            if not any(first - 1_000_000 <= ended and began <= last for began, ended in losses):
                wrong.append(f"{one} ended without a cause ({one.end_reason}): {one.end_detail}")
        return wrong


def _not_in_a_row(listed: list[Listed]) -> list[str]:
    """Whether each transaction of a timeline follows the one that was committed before it."""
    if not listed:
        return []
    histories = {id(one.history) for one in listed}
    if len(histories) > 1:
        return [f"timeline {listed[0].timeline} holds transactions of {len(histories)} histories"]
    wanted = listed[0].history.between(listed[0].written, listed[-1].written)
    found = [one.written for one in listed]
    if wanted == found:
        return []
    missing = [one.identity for one in wanted if one not in set(found)]
    return [f"timeline {listed[0].timeline}: {len(found)} listed, {len(wanted)} written; missing {missing[:5]}"]


class Restores(threading.Thread):
    """Restores to random moments, one after the other, each compared with what the writers know."""

    def __init__(self, everest: Everest, claims: Claims, seed: str) -> None:
        super().__init__(daemon=True, name="restores")
        self.everest, self.claims = everest, claims
        self.random = random.Random(f"{seed} restores")
        self.over = threading.Event()
        self.compared = 0
        self.failed: list[str] = []
        self.wrong: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.wait(1):
                self.one()
        except BaseException as error:
            self.failure = error
            raise

    def one(self, choice: str = "", one: Listed | None = None) -> bool:
        """One restore; False where it failed, as most do in whose way a fault was."""
        known = self.claims.known
        choice = choice or self.random.choice((Restore.TIME, Restore.TIME, Restore.GTID, Restore.BEFORE,
                                               Restore.LATEST, Restore.BACKUP))  # fmt: skip
        one = one or (self.random.choice(known) if known else None)
        backup = Backup.objects.filter(database=self.everest.source, state=Backup.SUCCEEDED).order_by("?").first()
        if one is None or backup is None:
            return False
        timeline = self.everest.source.timelines.filter(pk=one.timeline).first()
        details = {
            Restore.TIME: {"moment_us": one.time_us + self.random.choice((-1, 0, 0, 1, 500)), "timeline": timeline},
            Restore.GTID: {"moment_gtid": one.written.identity, "timeline": timeline},
            Restore.BEFORE: {"moment_gtid": one.written.identity, "timeline": timeline},
            Restore.LATEST: {"timeline": timeline},
            Restore.BACKUP: {"backup": backup},
        }[choice]
        restore = self.everest.request_restore(choice, **details)
        why = self.everest.carry_out(restore)
        if why:
            self.failed.append(f"{restore.pk} {choice}: {why}")
            self.wrong += self._refused(restore, one)
            return False
        with self.everest.stand.restoring:
            found = read_state(self.everest.stand.target)
        self.wrong += self._judge(restore, found, one)
        self.compared += 1
        return True

    def _refused(self, restore: Restore, one: Listed) -> list[str]:
        """Whether Everest refused a moment that it claims all the same; retention may have taken it meanwhile."""
        refused = restore.jobs.filter(result__error="NotCovered").first()
        spans = [span for span in self.everest.now.ranges() if str(span.timeline.pk) == one.timeline]
        claimed = restore.moment != Restore.BACKUP and any(s.first_us <= one.time_us <= s.last_us for s in spans)
        return [f"{restore} to {one} was refused: {refused.error}"] if refused and claimed else []

    def _judge(self, restore: Restore, found: Any, one: Listed) -> list[str]:
        plan = restore.plan
        history = self.everest.stand.truth.history_at(plan["backup"]["view_us"])
        last, wrong = history.last_in(intervals(plan["position"]["gtids"]))
        wrong += _bounds(restore, history, last, one)
        wrong += differences(history.state(last), found)
        return [f"{restore} to {restore.moment} {restore.moment_us or restore.moment_gtid}: {line}" for line in wrong]


def _bounds(restore: Restore, history: History, last: Written | None, one: Listed) -> list[str]:
    """Whether the moment that was chosen is the one that was asked for."""
    if restore.moment == Restore.GTID and last != one.written:
        return [f"the last is {last and last.identity}"]
    if restore.moment == Restore.BEFORE and last != history.before(one.written):
        return [f"the last is {last and last.identity}"]
    if restore.moment == Restore.TIME:
        at = history.written.index(last) + 1 if last else 0
        late = [w.identity for w in history.written[:at] if w.began_us > restore.moment_us]
        early = [w.identity for w in history.written[at:] if w.ended_us < restore.moment_us]
        return [f"{late} came later and {early} before"] if late or early else []
    return []


def intervals(gtids: str) -> dict[str, list[tuple[int, int]]]:
    """A GTID set as the server writes it: {uuid: [(first, last)]}."""
    found = {}
    for part in gtids.replace("\n", "").replace(" ", "").split(","):
        uuid, *spans = part.split(":")
        pairs = [re.fullmatch(r"(\d+)(?:-(\d+))?", span) for span in spans]
        found[uuid] = [(int(pair[1]), int(pair[2] or pair[1])) for pair in pairs if pair]
    return found
