"""Recipe files: find, read, override, check; whatever is wrong becomes one line that names the nearest right key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from chexalign.errors import RecipeError, printable
from chexalign.recipe.base import Section
from chexalign.recipe.engine import ENGINE_NAMES, Engine
from chexalign.recipe.preference import Dpo
from chexalign.recipe.recipe import Recipe
from chexalign.recipe.text import parse_yaml, read_text, told
from chexalign.recipe.train import ALGORITHM_NAMES, Algorithm

SHOWN = 200  # characters of a wrong value


def recipe_folders() -> list[Path]:
    """Where recipes known by name live: ./recipes, the source checkout, the installed package."""
    here = Path(__file__).resolve().parents[1]
    found = [Path("recipes"), here.parent.parent / "recipes", here / "_recipes"]
    return [p for p in found if p.is_dir()]


def find_recipe(name_or_path: str) -> Path:
    """A recipe's file from its path or its name. Raises RecipeError naming the nearest known recipe."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    known = {p.stem: p for folder in reversed(recipe_folders()) for p in sorted(folder.glob("*.yaml"))}
    stem = path.stem if path.suffix in (".yaml", ".yml") else name_or_path
    if stem in known and path.parent in (Path("."), Path("recipes")):
        return known[stem]
    raise RecipeError(f"no recipe {name_or_path!r}; {nearest(stem, list(known))}")


def nearest(word: str, options: list[str]) -> str:
    """The end of an error's line: the likeliest spelling, or else all that are known."""
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(options)) or 'none'}"


def load_recipe(name_or_path: str, overrides: list[str] | None = None, quick: bool = False) -> Recipe:
    """Read a recipe, apply its quick form and `key=value` overrides, and check it. Raises RecipeError in one line."""
    path = find_recipe(name_or_path)
    try:
        raw = parse_yaml(read_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path}: {told(error)}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, not {type(raw).__name__}")
    if quick and not raw.get("quick"):
        raise RecipeError(f"{path}: this recipe defines no quick form; run it without --quick")
    for key, value in (raw.get("quick") or {}).items() if quick else ():
        _assign(raw, key, value, path)
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"{text!r}: overrides are written key=value, for example sample.n=2")
        try:
            _assign(raw, key.strip(), parse_yaml(value), path)
        except (yaml.YAMLError, ValueError) as error:
            raise RecipeError(f"{printable(text)!r}: {told(error)}") from error
    return build_recipe(raw, str(path))


def _assign(raw: dict[str, Any], dotted: str, value: Any, path: Path) -> None:
    *parents, last = dotted.split(".")
    node = raw
    for name in parents:
        child = node.setdefault(name, {})
        if isinstance(child, str) and name == "algorithm":  # the short form, about to get a setting
            child = node[name] = {"type": child}
        if child is None:
            child = node[name] = {}
        if not isinstance(child, dict):
            raise RecipeError(f"{path}: {dotted}: {name} is not a section")
        node = child
    node[last] = value


def build_recipe(raw: dict[str, Any], where: str) -> Recipe:
    """Check a parsed recipe. Raises RecipeError with one line naming the wrong key and the nearest right one."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error)}") from error


TAGGED = dict.fromkeys(ALGORITHM_NAMES, Algorithm) | dict.fromkeys(ENGINE_NAMES, Engine)  # name of a form → all forms


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    loc = [str(p) for p in problem["loc"] if str(p) not in TAGGED or p == problem["loc"][-1]]
    dotted = ".".join(loc)
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(problem["loc"][:-1])
        elsewhere = [k for k in all_keys() if k.split(".")[-1] == loc[-1]]
        hint = f"did you mean {elsewhere[0]!r}?" if elsewhere else nearest(loc[-1], fields)
        return f"unknown key {dotted!r}; {hint}"
    if problem["type"] == "missing":
        return f"key {dotted!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not dotted or isinstance(problem["input"], dict):  # a whole section would drown its message
        return f"{dotted}: {message}" if dotted else message
    return f"{dotted}: {message} (got {printable(repr(problem['input']), SHOWN)})"


def _fields_at(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in loc:
        if isinstance(part, int):  # a place in a list of sections
            continue
        if part in TAGGED:
            model = next(m for m in get_args(get_args(TAGGED[part])[0]) if m.model_fields["type"].default == part)
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        model = next((m for m in options if isinstance(m, type) and issubclass(m, Section)), None)
        if model is None:
            model = Recipe if part != "algorithm" else Dpo
    return list(model.model_fields)


def all_keys() -> list[str]:
    """Every dotted recipe key, for suggestions and the docs."""
    keys = []
    for name, info in Recipe.model_fields.items():
        options = [info.annotation, *get_args(info.annotation)]
        section = next((m for m in options if isinstance(m, type) and issubclass(m, Section)), None)
        keys += [f"{name}.{k}" for k in section.model_fields] if section else [name]
    return keys
