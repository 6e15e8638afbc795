"""Parity with TRL 1.16's DPOTrainer, run for real on a tiny Llama: `loss_type="sigmoid"` (DPO) and `"ipo"` (averaged)."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from chexalign.policies import Policy, Prompt
from chexalign.recipe import Dpo, Ipo
from chexalign.train.algorithms import ALGORITHMS, Batch

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own imports warn
trl = pytest.importorskip("trl", reason="TRL is not installed: parity with it is not checked")

WORDS = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(60))]
ROWS = [
    {"prompt": "w1 w2 w3", "chosen": " w4 w5 w6 w7", "rejected": " w8 w9"},
    {"prompt": "w10 w11", "chosen": " w12", "rejected": " w13 w14 w15 w16 w17"},
    {"prompt": "w20", "chosen": " w21 w22 w23", "rejected": " w24 w25 w26"},
]


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


@pytest.mark.parametrize(
    ("trl_type", "settings"), [("sigmoid", Dpo(beta=0.3)), ("ipo", Ipo(tau=0.3, average_log_prob=True))]
)
def test_loss_and_gradient_equal_trl(trl_type, settings, tmp_path):
    from datasets import Dataset

    policy_model, reference = tiny_llama(0), tiny_llama(1)
    ours = copy.deepcopy(policy_model)
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.3, loss_type=trl_type, report_to=[], use_cpu=True, bf16=False,
        per_device_train_batch_size=len(ROWS), max_length=None, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=policy_model, ref_model=reference, args=arguments, train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer(),
    )  # fmt: skip
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(ROWS))])
    theirs = trainer.compute_loss(policy_model.eval(), inputs)
    theirs.backward()

    policies = [Policy(m, tokenizer(), "tiny") for m in (ours, reference)]
    prompts = [Prompt(r["prompt"]) for r in ROWS]
    completions = [[policies[0].completion_ids(r[k]) for k in ("chosen", "rejected")] for r in ROWS]
    sums = [
        torch.stack([torch.stack([x.sum() for x in g]) for g in p.token_logps(prompts, completions)]) for p in policies
    ]
    lengths = torch.tensor([[float(len(x)) for x in g] for g in completions])
    values, _ = ALGORITHMS[settings.type].loss(Batch(sums[0], lengths, sums[1].detach()), settings)
    values.mean().backward()

    assert values.mean().item() == pytest.approx(theirs.item(), rel=1e-5)
    norms = [torch.stack([p.grad.norm() for p in m.parameters()]).norm().item() for m in (ours, policy_model)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
