"""Recipe text → plain values: YAML as people expect it, and nothing in it that runs, grows without end or is read two ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from chexalign.errors import RecipeError

LARGEST = 1 << 20  # bytes of a recipe; our choice
MOST_VALUES = 20_000  # values once every alias is written out; our choice
DEEPEST = 50  # sections within sections; our choice
LONGEST_NUMBER = 400  # digits; our choice
TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars: 010 is ten, on and yes are words, 1:30 is text, 5e-7 a number. A key given twice is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # none of YAML 1.1's

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        if twice := {str(k) for k in keys if keys.count(k) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"key given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def _scalar(tag: str, pattern: str, first: str, made: Callable[[str], Any]) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))
    _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", lambda loader, node: made(node.value))


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text, 16) if text.startswith("0x") else int(text, 8) if text.startswith("0o") else int(text)


def _real(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_scalar("null", r"^(~|null|Null|NULL|)$", "~nN\0", lambda text: None)
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))
_scalar("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF", TRUTH.__getitem__)
_scalar("int", r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789", _whole)
REAL = r"^[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$"
_scalar("float", REAL, "-+.0123456789", _real)
_scalar("merge", r"^<<$", "<", str)


def read_text(path: Path) -> str:
    """A recipe file's text. Raises RecipeError for what is too large, packed, or no UTF-8."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(LARGEST + 1)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > LARGEST:
        raise RecipeError(f"{path} is larger than a recipe can be ({LARGEST >> 10} KiB)")
    if data[:2] == b"\x1f\x8b":
        raise RecipeError(f"{path} is packed with gzip; unpack it first")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def parse_yaml(text: str) -> Any:
    """The values of one YAML document. Raises ValueError or yaml.YAMLError saying what is wrong with it."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, (), {})
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"sections nested more than {DEEPEST} deep") from None
    finally:
        loader.dispose()


def _size(node: Any, within: tuple[int, ...], known: dict[int, int]) -> int:
    """How many values a node holds with every alias written out. Raises ValueError where they are too many, or endless."""
    if id(node) in within:
        raise ValueError(f"an anchor that holds itself (line {node.start_mark.line + 1})")
    if len(within) > DEEPEST:
        raise ValueError(f"sections nested more than {DEEPEST} deep (line {node.start_mark.line + 1})")
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_size(part, (*within, id(node)), known) for part in parts)
        if known[id(node)] > MOST_VALUES:
            raise ValueError(f"aliases that unfold to more than {MOST_VALUES} values (line {node.start_mark.line + 1})")
    return known[id(node)]


def told(error: Exception) -> str:
    """What is wrong with a text, on one line."""
    return " ".join(str(error).replace('"<unicode string>", ', "").split())
