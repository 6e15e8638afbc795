"""A real OpenAI-compatible server for tests: `transformers serve` on loopback, in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}


@contextmanager
def serve(folder: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """(url, process) of a server that has loaded the checkpoint at `folder`; killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    program = "from transformers.cli.transformers import main; main()"
    with open(log, "w") as out:
        process = subprocess.Popen([sys.executable, "-c", program, *words], stdout=out, stderr=out, env=OFFLINE)
    try:
        _wait(process, port, log)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _wait(process: subprocess.Popen, port: int, log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.25)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
