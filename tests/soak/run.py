"""One soak from its beginning to its counts.  Imported once Django is set up for the installation."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from backups.models import Restore
from everest.demo.compare import compare, dump_all
from tests.helpers import wait_for
from tests.soak.claims import Claims, Restores
from tests.soak.everest import Everest
from tests.soak.faults import FAULTS, Faults, heal
from tests.soak.stand import PATIENCE, Stand
from tests.soak.writers import now_us

HARM = (0.5, 4.0)  # seconds that a fault lasts
CALM = 180.0  # seconds in which everything is well again once the faults have ended


class Soak:
    def __init__(self, stand: Stand, seed: str, minutes: float, only: list[str] | None) -> None:
        self.stand, self.minutes = stand, minutes
        self.random = random.Random(seed)
        self.kinds = only or list(FAULTS)
        self.everest = Everest(stand)
        self.faults = Faults(stand, self.everest, seed)
        self.claims = Claims(self.everest, stand.truth)
        self.restores = Restores(self.everest, self.claims, seed)
        self.injected: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.looks = self.lost = 0
        self.over = threading.Event()
        self.began = time.monotonic()

    def run(self) -> bool:
        """Everything; True where nothing was wrong."""
        self.everest.set_up()
        supervisor = threading.Thread(target=self._supervise, daemon=True)
        supervisor.start()
        for writer in self.stand.writers:
            writer.start()
        try:
            wait_for(self.everest.idle, 3 * PATIENCE, 0.5)
            self.everest.begin_schedule()
            self.restores.start()
            self._disturb(self.began + 60 * self.minutes)
            self._calm_down()
        except AssertionError as error:  # something did not come about by itself
            self.wrong.append(str(error))
        finally:
            self.over.set()
            self.restores.over.set()
            for writer in self.stand.writers:
                writer.stopped.set()
            supervisor.join()
        self._report()
        return not self.wrong

    def _supervise(self) -> None:
        """As an init system does: what has ended is started again."""
        while not self.over.wait(1):
            for machine in (self.stand.worker, self.stand.web):
                if machine.process is None or machine.process.poll() is not None:
                    machine.start()

    def _disturb(self, end: float) -> None:
        """Each kind of fault once, in random order, again and again."""
        deck: list[str] = []
        while time.monotonic() < end:
            deck = deck or self.random.sample(self.kinds, len(self.kinds))
            name = deck.pop()
            self._say(name)
            try:
                self.faults.inject(name, self.random.uniform(*HARM))
            except AssertionError as error:
                self._wrong([f"{name}: {error}"])
            self.injected[name] += 1
            self.everest.delete_a_backup()
            self._look()

    def _look(self, everything: bool = False) -> None:
        self.looks += 1
        found = self.claims.look(everything)
        found += self.everest.stuck_jobs() + list(self.stand.failures()) + self.restores.wrong
        self.restores.wrong = []
        self._wrong(found)

    def _wrong(self, lines: list[str]) -> None:
        for line in lines:
            self._say(f"WRONG {line}")
        self.wrong += lines

    def _calm_down(self) -> None:
        """No more faults, no more writers: by itself everything that was written becomes recoverable."""
        self._say("calm")
        heal(self.stand)
        self.restores.over.set()
        self.restores.join()
        if self.restores.failure:
            self.wrong.append(f"restores ended: {self.restores.failure!r}")
        for writer in self.stand.writers:
            writer.stopped.set()
        for writer in self.stand.writers:
            writer.join()
        self.everest.end_schedule()
        ended = now_us()
        wait_for(lambda: self.everest.now.open_timeline is not None, CALM, 0.5)
        wait_for(lambda: self._recoverable_to() > ended, CALM, 0.5)
        wait_for(self.everest.idle, CALM, 0.5)
        self._look(everything=True)
        self.lost, causeless = self.claims.unclaimed(self.faults.losses)
        self.wrong += causeless + self.claims.false_ends(self.faults.losses)
        self.wrong += self.everest.wrong_errors() + self.everest.unforeseen()
        self._restore_ends()

    def _recoverable_to(self) -> int:
        return max((span.last_us for span in self.everest.now.ranges()), default=0)

    def _restore_ends(self) -> None:
        """The end of every timeline that can be restored, the newest last: that one equals the source."""
        last = {one.timeline: one for one in self.claims.known}
        for span in self.everest.now.ranges():  # retention may have left slices of others, which nothing begins
            if one := last.pop(str(span.timeline.pk), None):
                self._must_restore(Restore.LATEST, one)
        self._must_restore(Restore.LATEST, self.claims.known[-1])
        self.wrong += self.restores.wrong
        with self.stand.source.connect() as source, self.stand.target.connect() as target:
            found = compare(dump_all(source), dump_all(target))
        self.wrong += [f"the end: {line[:300]}" for line in found]

    def _must_restore(self, choice: str, one: object) -> None:
        if not self.restores.one(choice, one):
            self.wrong.append(f"without a fault: {self.restores.failed[-1]}")

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.0f} s  {text}", flush=True)

    def _report(self) -> None:
        print(f"MySQL {self.stand.version}, {len(self.stand.writers)} writers, {self.stand.truth.count:,} transactions")
        print("faults injected:", ", ".join(f"{name} {count}" for name, count in sorted(self.injected.items())))
        hit = self.stand.to_s3.met + self.stand.to_source.met + self.stand.to_target.met
        print("requests and pieces that were hit:", dict(hit))
        print(f"losses made: {len(self.faults.losses)}; transactions in told gaps: {self.lost}")
        print(f"restores compared: {self.restores.compared}; failed under faults: {len(self.restores.failed)}")
        for line, count in Counter(line.partition(": ")[2][:160] for line in self.restores.failed).most_common():
            print(f"    {count} x {line}")
        jobs = self.everest.jobs_by_outcome()
        print("jobs:", ", ".join(f"{name} {count}" for name, count in sorted(jobs.items())))
        print(f"looks at all claims: {self.looks}")
        print(f"differences: {len(self.wrong)}")
        for line in self.wrong[:50]:
            print(f"    {line}")
