"""A recipe is one YAML file that names a whole run: typed, closed, with defaults that are the vetted settings."""

from chexalign.recipe.files import build_recipe, find_recipe, load_recipe
from chexalign.recipe.online import Grpo, OnlineDpo, OnlineKto, OraPo, Rollout, Valor, Watch
from chexalign.recipe.policy import PROMPT_FIELDS, Lora, PolicySection, TinyPolicy
from chexalign.recipe.preference import Dpo, Ipo, Kto, LcDpo, Orpo, Pairs, Sft
from chexalign.recipe.recipe import Evaluate, Recipe, Sample, Score
from chexalign.recipe.studies import Studies
from chexalign.recipe.train import ALGORITHM_NAMES, Algorithm, Train
from chexalign.recipe.warmup import ExpertPhase, Phase, Warmup

__all__ = [
    "ALGORITHM_NAMES",
    "PROMPT_FIELDS",
    "Algorithm",
    "Dpo",
    "Evaluate",
    "ExpertPhase",
    "Grpo",
    "Ipo",
    "Kto",
    "LcDpo",
    "Lora",
    "OnlineDpo",
    "OnlineKto",
    "OraPo",
    "Orpo",
    "Pairs",
    "Phase",
    "PolicySection",
    "Recipe",
    "Rollout",
    "Sample",
    "Score",
    "Sft",
    "Studies",
    "TinyPolicy",
    "Train",
    "Valor",
    "Warmup",
    "Watch",
    "build_recipe",
    "find_recipe",
    "load_recipe",
]
