"""Samples from vLLM in this process. Written to vLLM's documented API and tested with a stand-in: it has not run on a GPU here.

With VLLM_ENABLE_V1_MULTIPROCESSING=0 vLLM keeps its worker in this process, so that `LLM.apply_model` can hand weights to
the model's own `load_weights` without copying them between processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from chexalign import processes
from chexalign.data.images import load_image
from chexalign.errors import RecipeError
from chexalign.policies import adapters
from chexalign.policies.engines.rescore import EngineSample, ended, rescored
from chexalign.policies.forward.generate import Sampled
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.recipe.engine import VllmEngine


class Vllm:
    """An engine in this process, on a GPU. Raises RecipeError for several processes or without the package vllm."""

    def __init__(self, policy: Policy, settings: VllmEngine, most_images: int):
        if processes.count() > 1:
            raise RecipeError(
                "engine vllm serves one process here: leave the launcher out, or sample with type process"
            )
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # vLLM reads it when it is imported
        try:
            import vllm
        except ImportError as error:
            raise RecipeError(
                f"engine vllm needs the package vllm and a GPU (`pip install vllm`): {error}; without it sample in process or "
                "from an endpoint"
            ) from error
        self.policy = policy
        self.settings = settings
        self.vllm = vllm
        dtype = policy.scorer.compute_dtype or policy.model.dtype
        options: dict[str, Any] = {
            "model": str(policy.model.name_or_path),
            "dtype": str(dtype).removeprefix("torch."),
            "gpu_memory_utilization": settings.gpu_share,
            "enable_sleep_mode": settings.sleep,
            "logprobs_mode": "raw_logprobs",  # the model's own, before temperature and top-p
            "seed": 0,
        }
        if settings.max_model_len:
            options["max_model_len"] = settings.max_model_len
        if most_images and hasattr(policy.processor, "image_processor"):
            options["limit_mm_per_prompt"] = {"image": most_images}
        self.llm = vllm.LLM(**options)
        self.awake = True
        if adapters.has_adapter(policy.model):
            self.push()  # vLLM has read the base alone
        self._rest()

    def push(self) -> None:
        """Before each rollout: all weights, under the names of transformers' modules; cached prefixes are of older ones."""
        self._wake()
        with plain_weights(self.policy.model) as weights:
            self.llm.apply_model(lambda model: model.load_weights(weights))
        self.llm.reset_prefix_cache()

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[list[Sampled]]:
        """One list of `n` per prompt, in order; log-probs are computed again by the policy, at temperature 1, in nats."""
        self._wake()
        stops, end = self.policy.stop_ids, self.policy.end_id
        common = {"n": n, "temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        more = {"logprobs": 0, "stop_token_ids": sorted(stops)}  # 0: of the sampled token alone
        params = [self.vllm.SamplingParams(seed=seed >> 32, **common, **more) for seed in seeds]
        answers = self.llm.generate([self._input(p) for p in prompts], params, use_tqdm=False)
        groups = [
            [
                EngineSample(
                    ended(one.token_ids, one.finish_reason, stops, end),
                    one.finish_reason,
                    tuple(at[token].logprob for token, at in zip(one.token_ids, one.logprobs, strict=True)),
                )
                for one in sorted(answer.outputs, key=lambda o: o.index)
            ]
            for answer in answers
        ]
        self._rest()
        return rescored(self.policy, prompts, groups, name="engine vllm", sampled=n > 1 and temperature > 0)

    def _input(self, prompt: Prompt) -> dict[str, Any]:
        """Token ids with one placeholder per image, which vLLM widens itself."""
        tokenizer = self.policy.tokenizer
        written = bool(tokenizer.bos_token) and prompt.text.startswith(tokenizer.bos_token)
        row: dict[str, Any] = {"prompt_token_ids": tokenizer(prompt.text, add_special_tokens=not written)["input_ids"]}
        if prompt.images:
            row["multi_modal_data"] = {"image": [load_image(prompt.root, path) for path in prompt.images]}
        return row

    def _wake(self) -> None:
        if not self.awake:
            self.llm.wake_up()
            self.awake = True

    def _rest(self) -> None:
        if self.settings.sleep:
            self.llm.sleep(level=1)
            self.awake = False


def _own_name(name: str) -> str:
    """A parameter's name outside PEFT's wrapper."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".modules_to_save.default", "")


@contextmanager
def plain_weights(model: Any) -> Iterator[list[tuple[str, Tensor]]]:
    """(name, weight) of the model without adapters; inside, they are merged. The base is put back bit by bit."""
    if not adapters.has_adapter(model):
        yield [(name, p.detach()) for name, p in model.named_parameters()]
        return
    base = [(p, p.detach().clone()) for name, p in model.named_parameters() if ".base_layer." in name]
    model.merge_adapter()
    try:
        yield [
            (_own_name(name), p.detach())
            for name, p in model.named_parameters()
            if model.prefix not in name and "original_module" not in name and ".modules_to_save.reference" not in name
        ]
    finally:
        model.unmerge_adapter()  # which rounds
        with torch.no_grad():
            for parameter, before in base:
                parameter.copy_(before)
