"""Progress with rate and time left: a live bar on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from chexalign.errors import printable
from chexalign.processes import is_main, rank

console = Console(stderr=True, highlight=False, quiet=not is_main())  # of several processes one talks
PLAIN_EVERY = 15.0  # seconds between lines when the output is no terminal


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else f"- {task.fields['unit']}/s")


class Ticker:
    """Count work done, of a `total` that may be unknown. `note` shows a short live remark such as the current loss."""

    def __init__(self, label: str, total: int | None, unit: str, done: int, bar: Progress | None):
        self.label = label
        self.total = total
        self.unit = unit
        self.count = done
        self.bar = bar
        self.first = done
        self.start = self.last_line = time.monotonic()
        self.remark = ""
        if bar is not None:
            self.task = bar.add_task(label, total=total, completed=done, unit=unit, remark="")

    def advance(self, by: int = 1, note: str = "") -> None:
        """Counts `by` more and shows it: at once on a terminal, every PLAIN_EVERY seconds elsewhere."""
        self.count += by
        self.remark = note or self.remark
        if self.bar is not None:
            self.bar.update(self.task, completed=self.count, remark=self.remark)
        elif time.monotonic() - self.last_line > PLAIN_EVERY:
            self.line()

    def line(self) -> None:
        """Prints the state as one plain line; the rate leaves out what was done before a resume."""
        self.last_line = time.monotonic()
        seconds = self.last_line - self.start
        rate = (self.count - self.first) / seconds if seconds > 0 else 0.0
        of, eta = "", ""
        if self.total is not None:
            left = (self.total - self.count) / rate if rate > 0 else 0.0
            of, eta = f"/{self.total}", ", done" if self.count >= self.total else f", {left:.0f} s left"
        line = f"{self.label}: {self.count}{of} {self.unit}, {rate:.1f}/s, {seconds:.0f} s{eta} {self.remark}"
        console.print(line.rstrip(), markup=False)


@contextmanager
def progress(label: str, total: int | None, unit: str, done: int = 0) -> Iterator[Ticker]:
    """A progress display for `total` units of work (None: not known), `done` of them finished by an earlier run."""
    if not console.is_terminal:
        ticker = Ticker(label, total, unit, done, None)
        yield ticker
        ticker.line()
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Ticker(label, total, unit, done, bar)


def _clean(text: str) -> str:
    """What files and servers say may hold codes that steer a terminal: they are shown, not obeyed."""
    return "\n".join(printable(line, len(line)) for line in text.split("\n"))


def say(text: str) -> None:
    """One plain line for the person at the terminal (stderr, so that stdout stays for results)."""
    console.print(_clean(text), markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """A failure's one line. It may be one process's alone, so all may say it."""
    if is_main():
        say(f"error: {text}")
    else:
        print(f"process {rank()}: error: {_clean(text)}", file=sys.stderr)


@cache
def say_once(text: str) -> None:
    """Says each distinct text once in a process: for remarks inside loops."""
    say(text)
