"""The recipe's part for `chexalign sweep`: which settings to train, how often, what is picked and what is evaluated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from chexalign.recipe.base import Count, Section, Seed


class Sweep(Section):
    """A row of the grid is `{algorithm: NAME, setting: value, …}`, the settings those of the algorithm or of `train:`; a list
    multiplies out, `name` is what tables call it. A name in place of a row stands for the rows of a built-in grid."""

    grid: tuple[str | dict[str, Any], ...] = ("table7",)
    seeds: tuple[Seed, ...] = ()  # train every row once per seed; once, with the recipe's, when absent
    select: str | None = (
        None  # judge whose mean on the validation split picks; the pairs', length-controlled, when absent
    )
    evaluate: Literal["picked", "all"] = (
        "picked"  # who meets the test split: the best row of each algorithm, or every row
    )
    samples: Count = 4  # reports per validation study, at temperature 1: our choice
    limit: Count | None = None  # how many validation studies; all when absent

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is given twice")
        return value
