"""The model card of an export: data, settings, results with intervals, limits and the transformers it needs."""

from types import SimpleNamespace

import pytest
import transformers

from chexalign.recipe.files import load_recipe
from chexalign.results import Block, Results
from chexalign.run.card import model_card


def card(tmp_path, n: int | None) -> str:
    def cell(mean):
        return {"rouge_l": {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": n, "abstained": 0}}

    block = Block(cell(0.2), cell(0.3), cell(0.1), n_studies=n)
    results = Results(block, level=0.9, headline=("rouge_l",), warnings=("Only few test studies.",))
    if n is not None:
        (tmp_path / "results.json").write_text("{}")
    run = SimpleNamespace(recipe=load_recipe("tiny"), path=lambda name: tmp_path / name, results=lambda: results)
    return model_card(run, SimpleNamespace(processor=1, tokenizer=2), tmp_path / "export")


def test_it_says_what_was_trained_on_measured_and_needed(tmp_path):
    text = card(tmp_path, 40)
    assert f"transformers {transformers.__version__}" in text and "source `phantom`" in text and "`dpo`" not in text
    assert "'type': 'dpo'" in text and "learning rate" in text
    assert "| rouge_l | 0.200 [0.150, 0.250] | 0.300 [0.250, 0.350] | 0.100 [0.050, 0.150] |" in text
    assert (
        "90 % bootstrap interval" in text
        and "- Only few test studies." in text
        and "AutoModelForImageTextToText" in text
    )


@pytest.mark.parametrize(("n", "said"), [(9, "| rouge_l | 0.200 | 0.300 | 0.100 |"), (None, "Not evaluated.")])
def test_below_ten_studies_no_interval_and_without_results_it_says_so(tmp_path, n, said):
    assert said in card(tmp_path, n)
