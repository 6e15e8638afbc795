"""One worker process: asked over JSON lines, watched by a clock, started again when it dies, but not for ever."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chexalign.errors import Abstain

PROGRAM = Path(__file__).with_name("radeval_worker.py")
START_SECONDS = 900.0  # imports, and with `download` the weights
DEATHS_IN_A_ROW, DEATHS = (
    3,
    20,
)  # our choices: after so many without an answer between, or in all, nothing is asked any more


class Died(Exception):
    """The worker gave no answer; the message says why."""


class Worker:
    """`metric` of RadEval under `python`. Started at the first question; safe to call from several threads."""

    def __init__(self, metric: str, python: Path | None, download: bool, timeout: float):
        self.metric = metric
        self.python = str(python or sys.executable)
        self.download = download
        self.timeout = timeout
        self.process: subprocess.Popen[bytes] | None = None
        self.buffer = b""
        self.number = 0
        self.in_a_row = 0
        self.deaths = 0
        self.reason: str | None = None  # why nothing is asked any more
        self.lock = threading.Lock()

    def ask_all(self, *columns: Any, at_once: int) -> list[Any]:
        """`ask_all(name, values, name, values, …)`: one value per item, an Abstain where there is none.

        Items go in requests of `at_once`; a request that kills the worker is repeated item by item.
        """
        names, lists = columns[::2], columns[1::2]
        rows = list(zip(*lists, strict=True))
        out: list[Any] = []
        with self.lock:
            for start in range(0, len(rows), at_once):
                out += self._chunk(names, rows[start : start + at_once])
        return out

    def _chunk(self, names: Sequence[str], rows: Sequence[Any]) -> list[Any]:
        try:
            return self._ask(names, rows)
        except Died as why:
            if self.reason or len(rows) == 1:
                return [Abstain(self.reason or str(why))] * len(rows)
        return [value for row in rows for value in self._chunk(names, [row])]

    def _ask(self, names: Sequence[str], rows: Sequence[Any]) -> list[Any]:
        if self.reason:
            raise Died(self.reason)
        self._start()
        self.number += 1
        sides = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        self._write({"id": self.number, **sides})
        message = self._read(self.timeout * len(rows), "an answer")
        found = message.get("rows", ())
        if message.get("id") != self.number or len(found) != len(rows):
            raise self._dead("its answer does not fit the question")
        self.in_a_row = 0
        return [Abstain(f"RadEval: {r['error']}") if "error" in r else r["value"] for r in found]

    # ---- the process

    def _start(self) -> None:
        if self.process is not None:
            return
        command = [self.python, "-P", str(PROGRAM), self.metric, *(["--download"] if self.download else [])]
        # -P: the folder of the program holds a radeval.py of ours
        offline = {} if self.download else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        self.errors = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                env={**os.environ, **offline},
            )
        except OSError as error:
            self.errors.close()
            self.reason = f"the RadEval worker cannot start: {self.python}: {error.strerror}"
            raise Died(self.reason) from error
        self.end = weakref.finalize(self, _end, self.process, self.errors)
        self.buffer = b""
        try:
            fatal = self._read(START_SECONDS, "its start").get("fatal")
        except Died as why:
            fatal = str(why)
        if fatal:  # a second start would meet the same
            self.reason = f"the RadEval worker cannot load {self.metric}: {fatal}"
            self.close()
            raise Died(self.reason)

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise self._dead("it is gone") from error

    def _read(self, seconds: float, what: str) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        end, pipe = time.monotonic() + seconds, self.process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise self._dead(f"{what} took more than {seconds:g} s")
                piece = os.read(pipe.fileno(), 1 << 16)
                if not piece:
                    raise self._dead("it died")
                self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise self._dead("it did not answer in JSON") from error
        return message if isinstance(message, dict) else {}

    def _dead(self, why: str) -> Died:
        """End the process and count; the last line that it wrote to stderr is part of the reason."""
        said = self._last_words()
        self.close()
        self.in_a_row = self.in_a_row + 1
        self.deaths = self.deaths + 1
        message = f"the RadEval worker gave no answer: {why}" + (f" ({said})" if said else "")
        if self.in_a_row >= DEATHS_IN_A_ROW or self.deaths >= DEATHS:
            self.reason = f"{message}; it is not started again after {self.deaths} such ends"
        return Died(message)

    def _last_words(self) -> str:
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - 2000))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    def close(self) -> None:
        """Ends the process if one runs; the next question starts another."""
        if self.process is not None:
            self.end()
            self.process = None


def _end(process: subprocess.Popen[bytes], errors: Any) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, errors):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # what was not written any more
                continue
