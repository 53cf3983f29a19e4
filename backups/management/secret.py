"""Secrets and forms for commands: never in arguments, which every user of the machine can read."""

import getpass
import os
import sys

from backups.management.command import Exit, Failure


def secret(variable, label):
    """From the environment, else asked for at a terminal, else the next line of standard input."""
    if variable in os.environ:
        return os.environ[variable]
    if sys.stdin.isatty():
        return getpass.getpass(f"{label}: ")
    line = sys.stdin.readline()
    if not line:
        raise Failure(f"{label} is missing: set {variable}, or give it on standard input.", Exit.USAGE)
    return line.rstrip("\r\n")


def checked(form):
    """The form, if what was given is right; the rules are the page's."""
    if not form.is_valid():
        problems = [f"{name}: {' '.join(errors)}" for name, errors in form.errors.items()]
        raise Failure(" ".join(problem.removeprefix("__all__: ") for problem in problems), Exit.USAGE)
    return form
