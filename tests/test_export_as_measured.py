"""What `export` writes decodes as the results were measured, and older transformers find the tie and the tokenizer."""

import json

import torch

from chexalign.policies import Policy
from chexalign.recipe.files import load_recipe
from chexalign.records import Study
from chexalign.report import wording
from chexalign.results import Block
from chexalign.run.finished import as_measured, for_older_transformers
from chexalign.run.studies import sampled_studies
from chexalign.train.preference.scoring_task import step_0_bound
from tests.policies import family_models


def test_no_penalty_and_no_sampling_of_the_published_checkpoint_is_exported(tmp_path):
    policy = Policy.load(family_models.write("qwen2.5-vl", tmp_path / "model"))
    policy.model.generation_config.update(repetition_penalty=1.05, do_sample=True, temperature=1e-6, top_k=64)
    policy.model.generation_config = as_measured(policy)
    policy.save(tmp_path / "export")
    for_older_transformers(tmp_path / "export")
    kept = json.loads((tmp_path / "export/generation_config.json").read_text())
    assert not {"repetition_penalty", "temperature", "top_k", "top_p"} & kept.keys() and not kept.get("do_sample")
    assert kept["eos_token_id"] == sorted(policy.stop_ids)
    config = json.loads((tmp_path / "export/config.json").read_text())
    assert config["text_config"]["tie_word_embeddings"] is config["tie_word_embeddings"]
    words = json.loads((tmp_path / "export/tokenizer_config.json").read_text())
    assert words["tokenizer_class"] != "TokenizersBackend"
    again = Policy.load(tmp_path / "export")
    ids = torch.arange(5)[None]
    assert torch.equal(again.model(input_ids=ids).logits, policy.model(input_ids=ids).logits)
    assert again.completion_ids("Clear lungs.") == policy.completion_ids("Clear lungs.")


def test_the_16_bit_gate_allows_a_short_completion_what_one_token_may_move():
    """One token moved by .15 passes; a hundred tokens of another policy, each .5 off, do not."""
    bound = step_0_bound(torch.tensor([1.0, 100.0]), exact=False)
    assert 0.15 < bound[0] and bound[1] < 100 * 0.5
    assert torch.equal(step_0_bound(torch.tensor([1.0, 100.0]), exact=True), torch.tensor([2e-3, 0.2]))


def test_a_limit_of_samples_is_a_random_draw_in_which_smaller_ones_nest():
    studies = [Study(f"s{i:03}", f"p{i}", "train", findings="x") for i in range(100)]

    def drawn(limit):
        recipe = load_recipe("tiny", [f"sample.limit={limit}", "sample.studies=all"])
        return [s.study_id for s in sampled_studies(recipe, studies)]

    few, many = drawn(10), drawn(40)
    assert len(few) == 10 and set(few) < set(many) and many == sorted(many)
    assert few != [s.study_id for s in studies[:10]] and drawn("null") == [s.study_id for s in studies]


def test_below_ten_studies_neither_interval_nor_direction_is_said():
    cells = {"rouge_l": {"mean": 0.0}}, {"rouge_l": {"mean": 1.0}}
    change = {"rouge_l": {"mean": 1.0, "low": 1.0, "high": 1.0, "relative": None, "n": 1}}
    block = Block(baseline=cells[0], aligned=cells[1], difference=change, n_studies=1)
    line = wording.headline("rouge_l", block)
    assert "too few" in line and "rose" not in line and "interval" not in line
