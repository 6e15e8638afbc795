"""Images looked at by several processes: a decoder that crashes or hangs on one file costs that file alone.

Run as a module it is such a process: one job per line comes in, one answer per line goes out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from chexalign.data.decode_check import CheckedImage, Job, as_checked, check_image, stamp

PATIENCE = 120.0  # seconds for one image; our choice
WORTH_IT = 50_000_000  # bytes of image files from which starting processes pays; our choice

Check = Callable[[Sequence[Job]], list[CheckedImage]]


class _Worker:
    """One decoding process, started at its first job and again after a crash."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, job: Job) -> CheckedImage:
        process = self.process = self.process or _start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
            process.stdin.flush()
            ready = select.select([process.stdout], [], [], PATIENCE)[0]
            line = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            line, ready = b"", [process.stdout]
        if line.endswith(b"\n"):
            return as_checked(json.loads(line))
        self.close()
        why = "its decoder crashed" if ready else f"its decoder took more than {PATIENCE:.0f} s"
        return CheckedImage(*stamp(Path(job.root), job.path), error=f"cannot be decoded ({why}); export it again")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "chexalign.data.decode_workers"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )


@contextmanager
def decoding(n_bytes: int, processes: int | None = None) -> Iterator[Check]:
    """A function that looks at many images, in their order: here for few bytes, else in a process per core."""
    count = processes or len(os.sched_getaffinity(0))
    if n_bytes < WORTH_IT or count < 2:
        yield lambda jobs: [check_image(job) for job in jobs]
        return
    local, workers = threading.local(), []

    def ask(job: Job) -> CheckedImage:
        if not hasattr(local, "worker"):
            local.worker = _Worker()
            workers.append(local.worker)
        return local.worker.ask(job)

    with ThreadPoolExecutor(count) as pool:
        try:
            yield lambda jobs: list(pool.map(ask, jobs))
        finally:
            for worker in workers:
                worker.close()


def serve() -> None:
    """Answer jobs until the input ends. What decoders print themselves goes nowhere: it may say a patient's name."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin.buffer:
        answer = check_image(Job(**json.loads(line)))
        answers.write(json.dumps(answer.to_dict()) + "\n")  # ASCII, whatever a path holds
        answers.flush()


if __name__ == "__main__":
    serve()
