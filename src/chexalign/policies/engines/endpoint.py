"""Samples from a server of the same checkpoint by the judges' HTTP client: loopback unless allowed, no redirects.

One request is one sample, with a seed of its own, so that any server will do. A text-only policy's prompt goes as it is to
/completions; with images its turns go to /chat/completions, images as PNG data URIs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from chexalign.data.images import load_image
from chexalign.errors import Abstain, WorkError
from chexalign.llm import endpoint as http
from chexalign.llm.reply import Usage
from chexalign.policies.engines.rescore import EngineSample, ended, rescored
from chexalign.policies.forward.generate import Sampled, stream_seed
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.progress import say
from chexalign.recipe.engine import EndpointEngine


class Endpoint:
    """Made once for a stage. Its samples are not bit-reproducible: servers batch requests as they come."""

    def __init__(self, policy: Policy, settings: EndpointEngine, most_images: int):
        url = http.base_url(settings.url, settings.allow_remote)
        self.policy = policy
        self.settings = settings
        self.name = f"the endpoint {url}"
        self.compared = False  # whether the server's prompt was measured against ours
        self.client = http.LlmClient(
            url,
            settings.model,
            Usage(),
            api_key_env=settings.api_key_env,
            concurrency=settings.concurrency,
            timeout=settings.timeout,
            retries=settings.retries,
            extra=settings.extra,
        )
        where = "" if http.is_loopback(http.urlsplit(url).hostname or "") else ", which is another machine"
        say(f"sampling from {self.name} (model {settings.model}){where}; samples will not be the same on another day")

    def push(self) -> None:
        """Raises WorkError always: a server elsewhere cannot follow a policy that learns."""
        raise WorkError(f"{self.name} takes no weights: it serves the checkpoint that it was started with")

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
        """One list of `n` per prompt, in order. Raises WorkError when the server cannot answer."""
        common = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        asked = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            body = {**self._body(prompt), **common}
            asked += [{**body, "seed": stream_seed(seed, "sample", j) >> 32} for j in range(n)]  # 31 bits suit all
        answers = self.client.each(asked, lambda body, _: self.client.request(_path(body), body))
        lost = [a for a in answers if isinstance(a, Abstain)]
        if lost:
            raise WorkError(
                f"{self.name} did not give {len(lost)} of {len(asked)} samples: {lost[0]}; what is on the disk stays: run "
                "again to go on"
            )
        given = [a for a in answers if isinstance(a, dict)]
        self._compare(prompts[0], given[0])
        drawn = [self._read(answer) for answer in given]
        groups = [drawn[i : i + n] for i in range(0, len(drawn), n)]
        return rescored(self.policy, prompts, groups, name=self.name, sampled=n > 1 and temperature > 0)

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        chat = bool(prompt.images)
        told: dict[str, Any] = {"messages": with_images(prompt)} if chat else {"prompt": self._text(prompt)}
        if self.settings.token_ids:
            told |= {"return_token_ids": True, "logprobs": True if chat else 0}
        return {"model": self.settings.model, **told}

    def _text(self, prompt: Prompt) -> str:
        """Without the beginning-of-text that the server's tokenizer will write itself."""
        tokenizer = self.policy.tokenizer
        bos, once = tokenizer.bos_token, prompt.text
        if bos and once.startswith(bos):
            rest = once.removeprefix(bos)
            if tokenizer(rest)["input_ids"] == tokenizer(once, add_special_tokens=False)["input_ids"]:
                return rest
        return once

    def _compare(self, prompt: Prompt, answer: dict[str, Any]) -> None:
        """Say once when the server's prompt has another length than ours: another chat template or image size."""
        usage = answer.get("usage")
        theirs = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if not self.compared and theirs:
            ours = self.policy.encode([prompt]).ids.shape[1]
            if theirs != ours:
                say(
                    f"warning: {self.name} read {theirs} prompt tokens where this policy has {ours}: another chat template "
                    "or image size?"
                )
        self.compared = True

    def _read(self, answer: dict[str, Any]) -> EngineSample:
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            reason, tokens = choice["finish_reason"], choice.get("token_ids")
            told = choice.get("logprobs") or {}
            logps = told.get("token_logprobs") or [row["logprob"] for row in told.get("content") or ()]
        except (KeyError, IndexError, TypeError, AttributeError):
            raise WorkError(f"{self.name} gave an answer that is no completion: {str(answer)[:120]}") from None
        policy, stop_id = self.policy, self.policy.end_id
        if self.settings.token_ids:
            if not isinstance(tokens, list) or not all(0 <= t < len(policy.tokenizer) for t in tokens):
                raise WorkError(f"{self.name} gives no token_ids of this tokenizer: leave engine.token_ids out")
            return EngineSample(ended(tokens, reason, policy.stop_ids, stop_id), reason, tuple(logps))
        if not isinstance(text, str):
            raise WorkError(f"{self.name} gave an answer without text")
        tokens = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        return EngineSample(ended(tokens, reason, policy.stop_ids, stop_id), reason)


def _path(body: dict[str, Any]) -> str:
    return "chat/completions" if "messages" in body else "completions"


def with_images(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt's turns in OpenAI's form. Raises WorkError where it has no turns: its preset uses no chat template."""
    if not prompt.turns:
        raise WorkError(
            "an endpoint is shown images in a chat alone, and this model's wording uses no chat template: sample in process"
        )
    images = iter(prompt.images)
    turns = []
    for turn in prompt.turns:
        parts = [
            {"type": "image_url", "image_url": {"url": _data_uri(prompt, next(images))}} if p["type"] == "image" else p
            for p in turn["content"]
        ]
        turns.append({**turn, "content": parts})
    return turns


def _data_uri(prompt: Prompt, path: str) -> str:
    """The pixels that this policy's processor would see, as PNG, which loses none."""
    file = io.BytesIO()
    load_image(prompt.root, path).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
