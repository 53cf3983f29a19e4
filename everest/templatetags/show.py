"""How values are shown: times with their zone, sizes, durations, states."""

from datetime import UTC, datetime, timedelta
from functools import cache
from urllib.parse import urlencode

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from everest.forms import zone_names

register = template.Library()

STATES = {
    # state: (colour, icon, label); the icon's shape tells as much as the colour
    "up": ("good", "check", "Up"),
    "down": ("bad", "cross", "Down"),
    "restoring": ("busy", "turn", "Restoring"),
    "unknown": ("idle", "question", "Unknown"),
    "pending": ("idle", "clock", "Pending"),
    "running": ("busy", "turn", "In progress"),
    "succeeded": ("good", "check", "Succeeded"),
    "failed": ("bad", "cross", "Failed"),
    "deleting": ("busy", "bin", "Deleting"),
    "cancelled": ("idle", "stop", "Cancelled"),
    "pass": ("good", "check", "Passed"),
    "warn": ("warn", "warning", "Warning"),
    "fail": ("bad", "cross", "Failed"),
    "on": ("good", "check", "On"),
    "off": ("idle", "stop", "Off"),
    "paused": ("idle", "pause", "Paused"),
    "active": ("good", "check", "Active"),
    "gap": ("bad", "warning", "Gap"),
    "healthy": ("good", "check", "Healthy"),
    "untested": ("idle", "question", "Not tested"),
}


@register.simple_tag
@cache
def icon(name):
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>', static("icons.svg"), name)


@register.simple_tag
@cache
def zones():
    """What a ZoneField suggests."""
    options = format_html_join("", '<option value="{}">', ([name] for name in zone_names()))
    return format_html('<datalist id="zones">{}</datalist>', options)


@register.simple_tag
def status(state, label=""):
    """A state as colour, shape and word."""
    colour, shape, word = STATES.get(state, ("idle", "question", str(state).capitalize()))
    return format_html('<span class="status status-{}">{}<span>{}</span></span>', colour, icon(shape), label or word)


def as_time(value):
    """A datetime from a datetime or from microseconds since the epoch; None from nothing."""
    if not value:
        return None
    if isinstance(value, int):
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=value)
    return value


def exact(value, fraction=False):
    """ "2026-11-22 18:30:00 CET" in the current zone; with microseconds where asked."""
    return written(timezone.localtime(as_time(value)), fraction)


def in_utc(value, fraction=False):
    return written(as_time(value).astimezone(UTC), fraction)


def written(moment, fraction):
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{moment.microsecond:06d} {moment.tzname()}" if fraction else f"{text} {moment.tzname()}"


def as_element(value, text, title):
    return format_html('<time datetime="{}" title="{}">{}</time>', as_time(value).isoformat(), title, text)


@register.filter
def moment(value):
    """The exact time in the person's zone, UTC on hover."""
    return as_element(value, exact(value), in_utc(value)) if value else "–"


@register.filter
def moment_us(value):
    """As `moment`, with microseconds."""
    return as_element(value, exact(value, True), in_utc(value, True)) if value else "–"


@register.filter
def typed(value):
    """As the wizard's field reads it."""
    return timezone.localtime(as_time(value)).strftime("%Y-%m-%d %H:%M:%S.%f")


@register.filter
def moment_both(value):
    """In the person's zone and in UTC, side by side."""
    if not value:
        return "–"
    here, there = exact(value), in_utc(value)
    if here == there:
        return as_element(value, here, there)
    return format_html('{} <span class="muted">({})</span>', as_element(value, here, there), there)


@register.filter
def ago(value):
    """ "3 min ago"; the exact time in both zones on hover."""
    if not value:
        return "–"
    seconds = (timezone.now() - as_time(value)).total_seconds()
    words = "just now" if 0 <= seconds < 5 else f"{coarse(seconds)} ago" if seconds >= 0 else f"in {coarse(-seconds)}"
    return as_element(value, words, f"{exact(value)} · {in_utc(value)}")


@register.filter
def lag(value):
    """How far a moment lies behind now: "4 s"."""
    return span(max((timezone.now() - as_time(value)).total_seconds(), 0)) if value else ""


def span(seconds):
    """A duration in its one or two largest units."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds and minutes < 5 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def coarse(seconds):
    """A duration in its largest unit."""
    for unit, length in (("days", 172_800), ("h", 7_200), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // {'days': 86_400, 'h': 3_600, 'min': 60}[unit])} {unit}"
    return f"{int(seconds)} s"


@register.simple_tag
def took(start, end=None):
    """How long something ran, or has run until now."""
    return span(((end or timezone.now()) - start).total_seconds()) if start else "–"


STEPS = {"load": "Loading the backup", "replay": "Replaying slices", "rows": "Copying rows"}


@register.filter
def step(name):
    """What a run says it does, as people read it."""
    return STEPS.get(name, name) if name else "Starting"


RESTORE_STEPS = {"Planning": "Prepare", "load": "Load the backup", "replay": "Replay slices"}


@register.filter
def restore_steps(job):
    """[(step, "done" | "now" | "next")] of a running restore."""
    names = list(RESTORE_STEPS)
    now = names.index(job.progress.get("step")) if job.progress.get("step") in names else 0
    states = ["done"] * now + ["now"] + ["next"] * (len(names) - now - 1)
    return list(zip(RESTORE_STEPS.values(), states, strict=True))


@register.filter
def time_left(progress):
    """Of a step that tells how much there is, judged by its speed so far; "" where that says nothing yet."""
    done, total, since = progress.get("done"), progress.get("total"), progress.get("since")
    if not (done and total and since) or done >= total:
        return ""
    passed = (timezone.now() - datetime.fromisoformat(since)).total_seconds()
    return span(passed * (total - done) / done) if passed > 3 else ""


@register.filter
def size(value):
    """Bytes in binary units: "3.2 MiB"."""
    number = float(value or 0)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024


@register.filter
def thousands(value):
    return f"{int(value or 0):,}".replace(",", " ")


@register.filter
def place(position):
    """A position as people read it: the GTID set, else file and offset."""
    position = position or {}
    return position.get("gtids") or f"{position.get('file', '')}:{position.get('pos', '')}".strip(":")


@register.simple_tag
def picked(database, moment, transaction, target=""):
    """The wizard's address with a transaction of the list filled in: "before" it or up to it ("gtid")."""
    chosen = f"{transaction['timeline']} {transaction['identity']}"
    asked = {"moment": moment, moment: transaction["identity"], "picked": chosen}
    if target:
        asked["target"] = target
    return f"{reverse('restore-wizard', args=[database.pk])}?{urlencode(asked)}"
