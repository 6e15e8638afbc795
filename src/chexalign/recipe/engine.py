"""The recipe's part for where samples come from: `sample.engine`, `train.rollout.engine`, `evaluate.engine`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from chexalign.recipe.base import Count, Rate, Section


class InProcess(Section):
    """The policy itself, in this process: exact, seeded, the same bytes after kill -9."""

    type: Literal["process"] = "process"


class EndpointEngine(Section):
    """A server of the same checkpoint that speaks OpenAI's HTTP: `vllm serve`, SGLang, llama.cpp, `transformers serve`."""

    type: Literal["endpoint"] = "endpoint"
    url: str
    model: str  # the name under which the server has the checkpoint
    api_key_env: str | None = None  # the environment variable that holds the key; never the key itself
    allow_remote: bool = False  # prompts and images may be sent to another machine
    concurrency: Count = 8  # requests at a time; each is for one sample
    timeout: Rate = 120.0  # seconds for one sample
    retries: Annotated[int, Field(ge=0)] = 4  # after a lost connection, 429 or 5xx
    token_ids: bool = False  # ask for the sampled tokens and their log-probs (a vLLM server gives them)
    extra: dict[str, Any] = {}  # more fields of each request; null takes one out


class VllmEngine(Section):
    """vLLM in this process, on this process's GPU."""

    type: Literal["vllm"] = "vllm"
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 0.5  # of the GPU's memory, for its weights and cache # our choice
    max_model_len: Count | None = None  # tokens of prompt and report; the model's own when absent
    sleep: bool = False  # between rollouts its weights wait in main memory and its cache is dropped


ENGINE_NAMES = ("process", "endpoint", "vllm")
Engine = Annotated[InProcess | EndpointEngine | VllmEngine, Field(discriminator="type")]


def refuse_endpoint(engine: Engine, why: str) -> Engine:
    """For a place whose weights change. Raises ValueError, which the recipe's reader shows with the section's name."""
    if isinstance(engine, EndpointEngine):
        raise ValueError(f"an endpoint cannot serve here: {why}; use type vllm, or leave engine out")
    return engine
