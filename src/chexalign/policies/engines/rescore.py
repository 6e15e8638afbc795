"""What an engine drew, with log-probs by the policy's own scorer: an engine's own are only compared with them.

A server has its own kernels and its own dtype, and perhaps other weights. Every number that training relies on is therefore
computed here again; where a server tells log-probs, they show whether it is the same policy at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from chexalign.errors import WorkError
from chexalign.policies.forward.generate import Sampled
from chexalign.policies.prompt import Prompt

if TYPE_CHECKING:
    from chexalign.policies.policy import Policy

MOST_GAP = 0.1  # nats per token, mean |engine − scorer|: kernels in 16 bits differ by hundredths # our choice
CHANCE = -20.0  # log-probability below which n equal samples are no accident # our choice


@dataclass(frozen=True)
class EngineSample:
    """One completion of an engine. `logps` are its own log-probs of the tokens, as far as it tells them."""

    tokens: tuple[int, ...]
    finish_reason: str  # "stop" or "length"
    logps: tuple[float, ...] = ()


def ended(tokens: Sequence[int], finish_reason: object, stop_ids: frozenset[int], stop_id: int) -> tuple[int, ...]:
    """The tokens with the one that ends a report, which engines leave out or not. Raises WorkError for another ending."""
    if finish_reason not in ("stop", "length"):
        raise WorkError(f"the engine ended a report with {finish_reason!r}, which is neither `stop` nor `length`")
    if finish_reason == "stop" and not (tokens and tokens[-1] in stop_ids):
        return (*tokens, stop_id)
    if not tokens:
        raise WorkError("the engine gave an empty report and says that it was cut at max_new_tokens")
    return tuple(tokens)


@torch.no_grad()
def rescored(
    policy: Policy, prompts: Sequence[Prompt], groups: Sequence[Sequence[EngineSample]], *, name: str, sampled: bool
) -> list[list[Sampled]]:
    """The same completions with the scorer's log-probs, in nats at temperature 1.

    Raises WorkError where the engine's own are of another policy, and where a `sampled` group cannot have been sampled.
    """
    rows = policy.token_logps(prompts, [[one.tokens for one in group] for group in groups])
    found, gaps = [], []
    for group, scored in zip(groups, rows, strict=True):
        made = []
        for one, row in zip(group, scored, strict=True):
            values = tuple(row.double().tolist())
            gaps += [abs(a - b) for a, b in zip(one.logps, values, strict=False)]  # its last may be left out
            made.append(Sampled(one.tokens, sum(values), one.finish_reason, values))
        found.append(made)
    if gaps and not (mean := sum(gaps) / len(gaps)) <= MOST_GAP:
        raise WorkError(
            f"{name}: its log-probs are {mean:.2f} nats per token away from this policy's: other weights, another prompt, or "
            "log-probs that are not the model's own at temperature 1"
        )
    if sampled:
        _check_sampled(found, name)
    return found


def _check_sampled(groups: Sequence[Sequence[Sampled]], name: str) -> None:
    """Raise WorkError where each prompt got one and the same completion, which sampling makes all but impossible."""
    if all(len({one.tokens for one in group}) == 1 for group in groups):
        chance = sum((len(group) - 1) * group[0].logp for group in groups)
        if chance < CHANCE:
            raise WorkError(
                f"{name} gives every prompt the same report {len(groups[0])} times: it decodes greedily whatever the "
                "temperature (transformers serve samples only where the checkpoint's generation_config.json has do_sample)"
            )
