"""The lock holds what pyproject.toml asks for, and a version outside the tested range is one line."""

import logging
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from chexalign import versions

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements/requirements.lock").read_text(encoding="utf-8")


def test_the_lock_satisfies_pyproject_and_names_a_hash_for_each():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK, re.M))
    for line in [*project["dependencies"], *extras["dev"], *extras["dicom"], *extras["llm"]]:
        wanted = Requirement(line)
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name != "torch":
            assert wanted.specifier.contains(locked[name]), f"{line}: run make lock"
    assert "torch" not in locked and not [name for name in locked if name.startswith(("nvidia", "triton", "cuda"))]
    assert LOCK.count("==") <= LOCK.count("--hash=sha256:")


def test_a_version_outside_is_one_line_and_inside_is_none(monkeypatch):
    monkeypatch.setattr(versions.metadata, "requires", lambda _: ["transformers<5.25,>=5.18", "peft>=0.19", "rich>=14"])
    installed = {"transformers": "5.24.0", "peft": "0.21.2"}
    monkeypatch.setattr(versions.metadata, "version", installed.get)
    assert versions.outside() is None
    installed["transformers"] = "5.25.0"
    line = versions.outside()
    assert line.startswith("not tested with transformers 5.25.0 (tested: <5.25,>=5.18)") and "peft" not in line


def test_a_deprecation_in_a_log_is_an_error():
    with pytest.raises(AssertionError, match="is deprecated"):
        logging.getLogger("transformers").warning("`x` is deprecated")


def test_the_quick_tests_of_other_pythons_exist():
    listed = [line for line in (ROOT / "requirements/quick_tests.txt").read_text().splitlines() if line[0] != "#"]
    assert listed and [line for line in listed if not (ROOT / line).is_file()] == []
