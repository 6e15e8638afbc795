"""Every command line of README and docs is one that the real command line understands, its settings included."""

import re
import shlex
import tomllib
from typing import Any

import pytest
import typer
from tests.docs.blocks import ROOT, blocks, commands

from chexalign.cli import app
from chexalign.recipe.files import load_recipe

GROUP: Any = typer.main.get_command(app)
SETTINGS = {"run", "studies", "warmup", "sample", "score", "pairs", "train", "evaluate", "sweep", "check"}
STANDS_FOR = {"RECIPE": "tiny", "STAGE": "pairs", "my_recipe.yaml": "tiny", "mine.yaml": "tiny"}


def understand(words: list[str]) -> None:
    """Parse one call as the console script would, and load the recipe with the settings that it changes."""
    assert words[0] in GROUP.commands, f"no command {words[0]}"
    words = [STANDS_FOR.get(word, word) for word in words]
    context = GROUP.commands[words[0]].make_context(words[0], list(words[1:]))
    if words[0] in SETTINGS:
        values = context.params
        recipe = load_recipe(values["recipe"], values.get("overrides"), values["quick"])
        assert values.get("restart") in (None, *recipe_stages()), values["restart"]
        assert recipe.name


def recipe_stages() -> tuple[str, ...]:
    from chexalign.run.folder import STAGES

    return tuple(STAGES)


@pytest.mark.parametrize(("where", "command"), commands("chexalign"))
def test_every_command_is_understood(monkeypatch, where, command):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)[1:]
    if words == ["--help"]:
        return
    if len(words) == 1 and ":" not in where:  # prose that names the command
        assert words[0] in GROUP.commands
    elif "…" not in command:
        understand(words)


@pytest.mark.parametrize(("where", "command"), commands("accelerate") + commands("torchrun"))
def test_every_launched_command_is_understood(monkeypatch, where, command):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)
    if "chexalign" in words:
        understand(words[words.index("chexalign") + 1 :])
    assert all((ROOT / word).is_file() for word in words if word.startswith("recipes/"))


@pytest.mark.parametrize("program", ["python", "pytest"])
def test_every_script_exists(program):
    for where, command in commands(program):
        for word in shlex.split(command, comments=True):
            if word.endswith(".py") and "/" in word:
                assert (ROOT / word).is_file(), f"{where}: {command}"


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    used = {shlex.split(command, comments=True)[1] for _, command in commands("make")}
    assert {"demo", "test", "docs"} <= used <= targets


def test_every_extra_of_the_package_exists():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    text = "".join(b.page.read_text() for b in blocks("", "bash", "yaml", "python"))
    assert set(re.findall(r"chexalign\[(\w+)\]", text)) <= extras
