"""The judges of a run: every line of the recipe that names one, what each may be shown, and where it finds its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chexalign.data import image_folder
from chexalign.recipe.recipe import Recipe

if TYPE_CHECKING:
    from chexalign.judges.contract import Judge

REWARDS_SEE = frozenset({"group", "step"})  # what online training shows a judge beside the texts


def shown_by_score(line: str) -> frozenset[str]:
    """What stage `score` shows the judge of a line beside the texts: a study's reports at once, where it makes use of them."""
    return frozenset({"group"}) if line == "pairwise" or "cascade(" in line else frozenset()


def judges_of(recipe: Recipe) -> dict[str, Judge]:
    """Every judge that the recipe names, by its line. Raises RecipeError for one that cannot be read or does not fit."""
    from chexalign.judges import from_recipe as load_judge

    watched = (recipe.train.watch.judge,) if recipe.train.online else ()
    found = {line: load_judge(line, recipe.judges) for line in sorted({*recipe.evaluate.judges, *watched})}
    found |= {n: load_judge(n, recipe.judges, shown_by_score(n)) for n in sorted(recipe.score.judges)}
    return found | {line: load_judge(line, recipe.judges, REWARDS_SEE) for line in recipe.train.rewards}


def with_visual_defaults(recipe: Recipe, folder: Path) -> Recipe:
    """The judge that looks at images, where the recipe sets it, is told where this run has them and its own expert."""
    given = recipe.judges.get("visual")
    if given is None:
        return recipe
    own: dict[str, str] = {}
    if "images" not in given:
        own["images"] = str(image_folder(recipe.studies, folder))
    if given.get("model") == "expert":
        own["model"] = str(folder / "expert")
    return recipe.model_copy(update={"judges": {**recipe.judges, "visual": {**given, **own}}})
