"""Everest's own settings, with one kind of Job whose length a test decides."""

from everest.settings import *  # noqa: F403
from everest.settings import INSTALLED_APPS, Q_CLUSTER

INSTALLED_APPS = [*INSTALLED_APPS, "tests.crash.slow.SlowJobs"]
# A delivery that is not acknowledged in two seconds comes again, while its task still runs.
Q_CLUSTER = {**Q_CLUSTER, "timeout": 1, "retry": 2, "poll": 0.1, "guard_cycle": 0.3}
