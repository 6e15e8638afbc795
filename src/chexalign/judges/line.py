"""Reads a judge from one line of a recipe: names, `lc_`, weighted sums, and the functions of FUNCTIONS.

    finding_f1        lc_rouge_l        bertscore[minilm-l6:L6]
    0.7*finding_f1 + 0.3*(rouge_l + bleu4)/2
    gate(format, min(finding_f1, rouge_l))        rouge_l + every(4, 0.5*chexpert_rule_f1)        rank(visual)

The line is parsed with Python's `ast` and never evaluated.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from pydantic import ConfigDict, TypeAdapter, ValidationError

from chexalign.errors import RecipeError, WorkError
from chexalign.judges import combine
from chexalign.judges.cascade import MARGIN, Cascade
from chexalign.judges.contract import Judge
from chexalign.judges.registry import JUDGES, LC, Options

_NAME = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*(?:\[[^\[\]]*\])?")  # a judge, with its variant, or a function
LARGEST = 1e9  # a weight beyond it is a slip of the pen # our choice
DEEPEST = 10  # brackets within brackets; our choice
Terms = list[tuple[float, Judge]]


def _one(line: str, value: Terms | float) -> Judge:
    if isinstance(value, float):
        raise RecipeError(f"judge {line!r}: a number where a judge is needed")
    return value[0][1] if len(value) == 1 and value[0][0] == 1 else combine.weighted_sum(value)


def _every(line: str, k: Terms | float, judge: Terms | float) -> Judge:
    if not isinstance(k, float) or k != int(k) or k < 1:
        raise RecipeError(f"judge {line!r}: every(k, judge) needs a whole number k of at least 1")
    return combine.every(int(k), _one(line, judge))


def _all_judges(make: Callable[..., Judge]) -> Callable[..., Judge]:
    return lambda line, *values: make(*(_one(line, v) for v in values))


def _cascade(line: str, cheap: Terms | float, costly: Terms | float, margin: Terms | float = MARGIN) -> Judge:
    if not isinstance(margin, float):
        raise RecipeError(f"judge {line!r}: cascade(cheap, costly, margin) needs a number as its margin")
    costly_judge = _one(line, costly)
    plain = costly_judge.name.removeprefix(LC).partition("[")[0]
    bounded = plain in JUDGES and JUDGES[plain].range == "0 to 1"
    return Cascade(_one(line, cheap), costly_judge, margin, bounded)


# name → (how it is written, fewest and most arguments, how it is made)
FUNCTIONS: dict[str, tuple[str, int, int, Callable[..., Judge]]] = {
    "gate": ("gate(condition, judge)", 2, 2, _all_judges(combine.gate)),
    "every": ("every(k, judge)", 2, 2, _every),
    "min": ("min(judge, judge, …)", 2, 99, _all_judges(combine.minimum)),
    "rank": ("rank(judge)", 1, 1, _all_judges(combine.rank)),
    "lc": ("lc(judge)", 1, 1, _all_judges(combine.length_controlled)),
    "cascade": ("cascade(cheap, costly) or cascade(cheap, costly, margin)", 2, 3, _cascade),
}


def _depth(line: str) -> int:
    """How many brackets are open at most."""
    opened = itertools.accumulate((c == "(") - (c == ")") for c in line)
    return max(opened, default=0)


def parse(line: str, options: Options) -> Judge:
    """The judge that a line names. Raises RecipeError with what is wrong and the nearest right name."""
    names: list[str] = []
    if _depth(line) > DEEPEST:
        raise RecipeError(f"judge {line[:60]!r}…: it cannot be read, its brackets are nested more than {DEEPEST} deep")

    def stand_in(match: re.Match[str]) -> str:
        names.append(match[0])
        return f"_{len(names) - 1}"

    unreadable = f"judge {line!r} cannot be read; write for example 0.7*finding_f1 + 0.3*rouge_l"
    try:
        tree = ast.parse(_NAME.sub(stand_in, line).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RecipeError(unreadable) from error
    try:
        return _one(line, _Reader(line, names, options).read(tree.body))
    except RecursionError as error:
        raise RecipeError(unreadable) from error


class _Reader:
    """Walks one parsed line. `made` holds its judges by name, so that one named twice is made once."""

    def __init__(self, line: str, names: Sequence[str], options: Options):
        self.line = line
        self.names = names
        self.options = options
        self.made: dict[str, Judge] = {}

    def read(self, node: ast.expr) -> Terms | float:
        match node:
            case ast.Constant(value=bool() | str() | bytes() | complex() | None):
                return self.refuse("only judges, numbers and functions have a place here")
            case ast.Constant(value=int() | float() as number):
                return float(number) if abs(number) < LARGEST else self.refuse("a number too large")
            case ast.Name(id=stand_in):
                return [(1.0, self.leaf(self.name(stand_in)))]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.times(self.read(operand), -1.0)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                sign = 1.0 if isinstance(op, ast.Add) else -1.0
                a, b = self.read(left), self.times(self.read(right), sign)
                if isinstance(a, float) or isinstance(b, float):
                    return self.refuse("a number alone cannot be added")
                return a + b
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                a, b = self.read(left), self.read(right)
                return self.times(b, a) if isinstance(a, float) else self.times(a, b)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                divisor = self.read(right)
                if not isinstance(divisor, float) or not divisor:
                    return self.refuse("only a number other than 0 can divide")
                return self.times(self.read(left), 1 / divisor)
            case ast.Call(func=ast.Name(id=stand_in), args=args, keywords=[]):
                return self.call(self.name(stand_in), args)
        return self.refuse("only judges, numbers, + - * / and functions have a place here")

    def name(self, stand_in: str) -> str:
        return self.names[int(stand_in[1:])]

    def refuse(self, why: str) -> NoReturn:
        raise RecipeError(f"judge {self.line!r}: {why}")

    def times(self, value: Terms | float, factor: Terms | float) -> Terms | float:
        if not isinstance(factor, float):
            return self.refuse("two judges cannot be multiplied; use min(a, b) or gate(a, b)")
        if not all(abs(w * factor) < LARGEST for w in ([value] if isinstance(value, float) else [w for w, _ in value])):
            return self.refuse("a number too large")
        return value * factor if isinstance(value, float) else [(w * factor, j) for w, j in value]

    def call(self, name: str, args: Sequence[ast.expr]) -> Terms:
        if name not in FUNCTIONS:
            known = ", ".join(how for how, *_ in FUNCTIONS.values())
            nearest = difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.0)[0]
            return self.refuse(f"unknown function {name}; did you mean {nearest}? There are {known}")
        how, fewest, most, make = FUNCTIONS[name]
        if not fewest <= len(args) <= most:
            return self.refuse(f"{name} is written {how}")
        return [(1.0, make(self.line, *map(self.read, args)))]

    def leaf(self, name: str) -> Judge:
        if name not in self.made:
            plain, variant = split_name(name)
            judge = make_judge(plain, variant, self.options.get(plain, {}))
            self.made[name] = combine.length_controlled(judge) if name.startswith(LC) else judge
        return self.made[name]


def split_name(name: str) -> tuple[str, str | None]:
    """`lc_bertscore[minilm-l6:L6]` → (`bertscore`, `minilm-l6:L6`). Raises RecipeError when there is no such judge."""
    plain, bracket, variant = name.removeprefix(LC).partition("[")
    if plain not in JUDGES:
        prefix = LC if name.startswith(LC) else ""
        nearest = difflib.get_close_matches(plain, JUDGES, n=1, cutoff=0.0)[0]
        known = f"{', '.join(JUDGES)}; any of them with {LC} in front"
        raise RecipeError(f"unknown judge {name!r}; did you mean {prefix}{nearest}? Judges: {known}")
    return plain, variant.removesuffix("]") if bracket else None


def leaf_names(line: str) -> list[str]:
    """The judges that a line names, as written: every name that is not called like a function."""
    return list(dict.fromkeys(m[0] for m in _NAME.finditer(line) if not line[m.end() :].lstrip().startswith("(")))


def plain_names(line: str) -> list[str]:
    """The judges of JUDGES that a line names. Raises RecipeError for one that is not there."""
    return list(dict.fromkeys(split_name(name)[0] for name in leaf_names(line)))


def make_judge(name: str, variant: str | None, options: Mapping[str, Any]) -> Judge:
    """Call a judge's constructor with checked options; `name[variant]` gives its option `variant`."""
    constructor = JUDGES[name].constructor()
    return constructor(**checked_options(name, constructor, variant, options))


def checked_options(name: str, constructor: Any, variant: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their types mended ("2" for 2). Raises RecipeError for an unknown one, with the nearest known name."""
    known = inspect.signature(constructor, eval_str=True).parameters
    given = dict(options)
    if variant is not None:
        if "variant" not in known:
            raise RecipeError(f"judge {name} has no variants: write {name} without [{variant}]")
        given["variant"] = variant
    for key, value in given.items():
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known) or 'none'}"
            raise RecipeError(f"judges.{name}: unknown option {key!r}; {hint}")
        try:
            config = ConfigDict(arbitrary_types_allowed=True)
            given[key] = TypeAdapter(known[key].annotation, config=config).validate_python(value)
        except ValidationError as error:
            raise RecipeError(f"judges.{name}.{key}: {error.errors()[0]['msg']} (got {value!r})") from error
    if lost := [k for k, p in known.items() if p.default is p.empty and k not in given]:
        raise RecipeError(f"judges.{name}.{lost[0]} is missing: judge {name} needs it")
    return given


@functools.lru_cache(maxsize=64)
def _shared(line: str, options: str) -> Judge:
    judge, chosen = parse(line, json.loads(options)), json.loads(options)
    for written in leaf_names(line):
        plain, variant = split_name(written)
        entry = JUDGES[plain]
        given = checked_options(plain, entry.constructor(), variant, chosen.get(plain, {}))
        if why := entry.unavailable(**given):
            raise WorkError(f"judge {written} cannot run here: {why}")
        name = make_judge(plain, variant, chosen.get(plain, {})).name
        if not given and name != plain:
            prefix = LC if written.startswith(LC) else ""
            raise RecipeError(
                f"judge {written!r} is {prefix}{name} here; write that, so that tables say what was measured"
            )
    return judge


def shared(line: str, options: Options) -> Judge:
    """The judge of a line, made once for equal options. Raises RecipeError for a wrong line, WorkError where it cannot run."""
    for name in options:
        split_name(name)
    return _shared(line, json.dumps(options, sort_keys=True, default=str))
