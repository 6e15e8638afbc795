"""Parity with TRL 1.16's own trainers, run for real on a tiny Llama: loss and gradient norm of one batch.

- `DPOTrainer`, `loss_type="sigmoid"`: DPO. `loss_type="ipo"`: IPO on log-probs averaged per token.
- `KTOTrainer`, `loss_type="kto"`: KTO, the mean over single examples. TRL's KL takes the completion of the row before in
  the batch; the rows here are ordered so that it is always another prompt's, and the same completions are given to ours.
- `trl.experimental.orpo.ORPOTrainer`: ORPO. Its odds come from log-probs averaged per token, as ours do. Its NLL term
  counts prompt tokens too and averages over the tokens of the batch; ours is the mean over completion tokens, then over
  pairs. The two are one where the prompt is a single token and the batch a single pair, and are compared there; the
  odds-ratio term is compared on the whole batch. TRL's log(1 − exp x) branches at .6931472 as ours does, and has no clamp
  below 0; ours keeps x ≤ −1e-6, which only a completion of sure tokens reaches.
"""

import copy

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from chexalign import losses
from chexalign.policies import Policy, Prompt
from chexalign.recipe.preference import Dpo, Ipo, Kto, Orpo
from chexalign.train.preference.scoring_task import Example, ScoringTask

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own imports warn
trl = pytest.importorskip("trl", reason="TRL is not installed: parity with it is not checked")

WORDS = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(60))]
ROWS = [
    {"prompt": "w1 w2 w3", "chosen": " w4 w5 w6 w7", "rejected": " w8 w9"},
    {"prompt": "w10 w11", "chosen": " w12", "rejected": " w13 w14 w15 w16 w17"},
    {"prompt": "w20", "chosen": " w21 w22 w23", "rejected": " w24 w25 w26"},
]
ARGUMENTS = {
    "report_to": [], "use_cpu": True, "bf16": False, "max_length": 64, "gradient_checkpointing": False,
    "per_device_train_batch_size": 6,
}  # fmt: skip


def tiny_llama(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.5,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def policy(model: LlamaForCausalLM) -> Policy:
    return Policy(model, tokenizer(), "tiny")


def examples(rows, reference: Policy, free=None, start: str = "") -> list[Example]:
    """Rows as examples, `free[i]` being the further completions of row i, with the reference model's log-probs."""
    out = []
    for i, row in enumerate(rows):
        prompt = Prompt(start + row["prompt"])
        completions = [*(reference.completion_ids(row[k]) for k in ("chosen", "rejected")), *(free[i] if free else ())]
        with torch.no_grad():
            values = reference.token_logps([prompt], [completions])[0]
        out.append(Example(prompt, tuple(map(tuple, completions)), tuple(float(v.sum()) for v in values)))
    return out


def ours(model: LlamaForCausalLM, settings, items: list[Example]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Per-example loss and metrics as the training loop computes them."""
    task = ScoringTask(policy(model), settings)
    return task.loss(task.module(*task.inputs(items)), items)


def theirs(trainer, model) -> torch.Tensor:
    """TRL's loss over its whole dataset as one batch."""
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    return trainer.compute_loss(model.eval(), inputs)


def gradient_norm(model: torch.nn.Module) -> float:
    return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())


def assert_equal(loss: torch.Tensor, model, their_loss: torch.Tensor, their_model) -> None:
    """Values to 1e-5 and gradient norms to 1e-4, relative."""
    loss.backward()
    their_loss.backward()
    assert loss.item() == pytest.approx(their_loss.item(), rel=1e-5)
    assert gradient_norm(model) == pytest.approx(gradient_norm(their_model), rel=1e-4)


@pytest.mark.parametrize(
    ("trl_type", "settings"), [("sigmoid", Dpo(beta=0.3)), ("ipo", Ipo(tau=0.3, average_log_prob=True))]
)
def test_dpo_and_averaged_ipo_equal_trl(trl_type, settings, tmp_path):
    from datasets import Dataset

    model, reference = tiny_llama(0), tiny_llama(1)
    mine = copy.deepcopy(model)
    items = examples(ROWS, policy(copy.deepcopy(reference)))
    trainer = trl.DPOTrainer(
        model=model, ref_model=reference, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer(),
        args=trl.DPOConfig(output_dir=str(tmp_path), beta=0.3, loss_type=trl_type, **ARGUMENTS),
    )  # fmt: skip
    values, _ = ours(mine, settings, items)
    assert_equal(values.mean(), mine, theirs(trainer, model), model)


def test_kto_equals_trl(tmp_path):
    from datasets import Dataset

    model, reference = tiny_llama(2), tiny_llama(1)
    mine, frozen = copy.deepcopy(model), policy(copy.deepcopy(reference))
    single = [
        {"prompt": r["prompt"], "completion": r[side], "label": side == "chosen"}
        for side in ("chosen", "rejected")
        for r in ROWS
    ]
    trainer = trl.KTOTrainer(
        model=model, ref_model=reference, train_dataset=Dataset.from_list(single), processing_class=tokenizer(),
        args=trl.KTOConfig(
            output_dir=str(tmp_path), beta=0.2, desirable_weight=1.3, undesirable_weight=0.7, **ARGUMENTS
        ),
    )  # fmt: skip
    rotated, n = trainer.train_dataset["KL_completion_ids"], len(ROWS)
    for i, row in enumerate(ROWS):
        own = [list(frozen.completion_ids(row[k])) for k in ("chosen", "rejected")]
        assert rotated[i] not in own and rotated[i + n] not in own
    items = examples(ROWS, frozen, [(rotated[i], rotated[i + n]) for i in range(n)])
    values, metrics = ours(mine, Kto(beta=0.2, desirable_weight=1.3, undesirable_weight=0.7), items)
    their_loss = theirs(trainer, model)
    kl = trainer._metrics["eval"]["kl"][-1]
    assert kl > 1 and metrics["kl"].tolist() == pytest.approx([kl] * n, rel=1e-5)  # above 0, so that it counts
    assert_equal(values.mean(), mine, their_loss, model)


def orpo_trainer(model, rows, folder):
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    arguments = ORPOConfig(output_dir=str(folder), beta=0.7, remove_unused_columns=False, **ARGUMENTS)
    return ORPOTrainer(model=model, train_dataset=Dataset.from_list(rows), processing_class=tokenizer(), args=arguments)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["prompt"])
def test_orpo_equals_trl_where_nothing_but_the_completion_is_predicted(row, tmp_path):
    """The empty prompt becomes one start token, which nothing predicts: TRL's NLL then covers the completion alone."""
    model = tiny_llama(0)
    mine, row = copy.deepcopy(model), {**row, "prompt": ""}
    trainer = orpo_trainer(model, [row], tmp_path)
    values, _ = ours(mine, Orpo(lam=0.7), examples([row], policy(tiny_llama(1)), start="<s>"))
    assert_equal(values.mean(), mine, theirs(trainer, model), model)


def test_orpos_odds_ratio_term_equals_trl_on_a_batch(tmp_path):
    model = tiny_llama(0)
    mine, items = copy.deepcopy(model), examples(ROWS, policy(tiny_llama(1)), start="<s> ")
    trainer = orpo_trainer(model, ROWS, tmp_path)
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(ROWS))])
    chosen, rejected, *_ = trainer.concatenated_forward(model, inputs)
    term = -trainer.odds_ratio_loss(chosen, rejected)[0].mean()

    task = ScoringTask(policy(mine), Orpo(lam=0.7))
    batch = task.batch(task.module(*task.inputs(items)), items)
    lengths = batch.lengths[:, 0], batch.lengths[:, 1]
    nll = losses.sft(batch.logps[:, 0], lengths[0])
    assert_equal((losses.orpo(*batch.pair(), *lengths, lam=0.7) - nll).mean(), mine, term, model)
