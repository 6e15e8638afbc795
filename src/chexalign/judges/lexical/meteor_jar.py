"""`meteor_1.5`: METEOR's Java program from the package pycocoevalcap, kept open and asked line by line.

Parameters of the captioning tools: English, normalised (`-l en -norm`), i.e. alpha .85, beta .2, gamma .6, delta .75.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import threading
from importlib import util
from pathlib import Path
from typing import Any

from chexalign.errors import Abstain
from chexalign.judges.contract import TextJudge
from chexalign.judges.lexical.meteor import tokens

SECONDS = 60.0  # for one pair, start of Java included # our choice
WORDS = 1_000  # longer texts are not asked: the program's search grows steeply # our choice


def find_jar(jar: str | None) -> Path | None:
    """The option's file, or else the one inside the package pycocoevalcap; None where there is none. Downloads nothing."""
    if jar is not None:
        return Path(jar).expanduser() if Path(jar).expanduser().is_file() else None
    found = util.find_spec("pycocoevalcap")
    places = found.submodule_search_locations if found and found.submodule_search_locations else []
    return next((p for p in (Path(place) / "meteor/meteor-1.5.jar" for place in places) if p.is_file()), None)


def missing(*, jar: str | None = None) -> str | None:
    """Why METEOR 1.5 cannot run here, or None."""
    if shutil.which("java") is None:
        return "java is not on the path; install a Java runtime (Debian: default-jre-headless)"
    if find_jar(jar) is None:
        return f"{jar or 'meteor-1.5.jar'} is absent; pip install 'chexalign[meteor]', or give judges.meteor_1.5.jar"
    return None


class Program:
    """The running Java program. A time-out or a death ends it, and the next question starts it again."""

    def __init__(self, jar: Path):
        self.jar = jar
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0
        atexit.register(self.stop)

    def stop(self) -> None:
        """Kills the program, in the process that started it alone: a fork must not end its parent's."""
        if self.process and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            command = ["java", "-Xmx2G", "-jar", str(self.jar.resolve()), "-", "-", "-stdio", "-l", "en", "-norm"]
            self.process = subprocess.Popen(
                command, cwd=self.jar.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self.owner = os.getpid()
        return self.process

    def score(self, report: str, reference: str) -> float:
        """Raises Abstain when the program dies, says something else than a number, or takes too long."""
        with self.lock:
            process = self._running()
            timer = threading.Timer(SECONDS, process.kill)
            timer.start()
            try:
                statistics = _ask(process, f"SCORE ||| {reference} ||| {report}")
                score = float(_ask(process, f"EVAL ||| {statistics}"))
                _line(process)  # the corpus score, of one pair here
                return score
            except (OSError, ValueError) as error:
                self.stop()
                raise Abstain(f"METEOR 1.5 gave no score within {SECONDS:.0f} s ({error})") from error
            finally:
                timer.cancel()


def _ask(process: subprocess.Popen[bytes], line: str) -> str:
    assert process.stdin
    process.stdin.write(f"{line}\n".encode("utf-8", "replace"))
    process.stdin.flush()
    return _line(process)


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise ValueError("the program ended")
    return line.decode().strip()


@functools.cache
def _program(jar: Path) -> Program:
    return Program(jar)


def meteor_15(*, jar: str | None = None) -> TextJudge:
    """0 to 1, English. `jar`: path of meteor-1.5.jar. Abstains without Java or jar, and on texts over WORDS words."""

    def encode(text: str) -> str:
        words = [t for t in tokens(text) if t != "|"]
        if len(words) > WORDS:
            raise Abstain(f"longer than {WORDS} words: METEOR 1.5 would take too long")
        return " ".join(words)

    def compare(report: str, reference: str) -> tuple[float, dict[str, Any]]:
        path, why = find_jar(jar), missing(jar=jar)
        if path is None or why:
            raise Abstain(why or "")
        return _program(path).score(report, reference), {}

    return TextJudge("meteor_1.5", "1 jar 1.5 -l en -norm", encode, compare)
