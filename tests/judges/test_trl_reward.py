"""Our judges inside TRL's own GRPOTrainer, three steps."""

import pytest
from tests.losses.test_trl_parity import tiny_llama, tokenizer

from chexalign.errors import RecipeError
from chexalign.judges.trl import reward_function


def test_scores_references_groups_and_abstentions():
    score = reward_function("rank(rouge_l)")
    texts, references = ["a b c", "a", "a b", "x"], ["a b c"] * 4
    assert score(["p"] * 4, texts, reference=references) == pytest.approx([1, 1 / 3, 2 / 3, 0])
    assert score(["p", "p", "q", "q"], texts, reference=references) == [1, 0, 1, 0]
    assert reward_function("rouge_l")(["p"], [[{"role": "assistant", "content": "a b c"}]], reference=[""]) == [None]
    with pytest.raises(RecipeError, match="no column 'reference'"):
        score(["p"], ["a"])


@pytest.mark.filterwarnings("ignore")  # TRL's own imports warn
def test_three_steps_in_trls_grpo_trainer(tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed: our rewards are not tried inside it")
    from datasets import Dataset

    rows = [{"prompt": f"w{i} w{i + 1}", "reference": f"w{i + 2} w{i + 3} w4"} for i in range(6)]
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=4, num_generations=4,
        max_completion_length=8, max_steps=3, gradient_checkpointing=False, logging_steps=1, save_strategy="no",
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=tiny_llama(0), reward_funcs=reward_function("rouge_l + every(2, bleu4)"), args=arguments,
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer(),
    )  # fmt: skip
    trainer.train()
    logged = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert len(logged) == 3 and all(0 <= r <= 2 for r in logged) and max(logged) > 0
