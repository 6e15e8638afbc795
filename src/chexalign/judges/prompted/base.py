"""What the judges that ask a language model share: their options, the choice of a backend, memory, and the bill."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from chexalign.errors import Abstain, RecipeError
from chexalign.judges import cache as disk
from chexalign.judges.contract import MEMORY, Judgement
from chexalign.judges.weights import fingerprint
from chexalign.llm.reply import Answer, Backend, Passing, Prompt, Reply, Unavailable, Usage


@dataclass(kw_only=True)
class LlmJudge:
    """The options of every judge that asks a language model, and `ask`.

    `url` and `model` name an endpoint and its model; `model` alone is a checkpoint in this process; `answers` is a file of
    canned answers. Without any of them there is no language model (`has_model`).
    """

    url: str | None = None
    model: str | None = None
    answers: str | None = None
    api_key_env: str | None = None  # the environment variable that holds the key; never the key itself
    allow_remote: bool = False  # reports may be sent to another machine
    concurrency: int = 8  # requests at a time
    timeout: float = 120.0  # seconds for one answer; later is an abstention
    retries: int = 4  # after a lost connection, 429 or 5xx
    max_tokens: int | Literal["auto"] = 1024  # of one answer; auto: what the prompt leaves of `context_tokens`
    context_tokens: int = 2048  # tokens of prompt and answer together, for max_tokens auto; 2048 is GREEN's
    extra: dict[str, object] = field(default_factory=dict)  # more fields of the request, e.g. chat_template_kwargs
    batch_size: int = 8  # prompts in one forward pass, in process
    download: bool = False  # fetch `model` from the hub
    cache: str | None = None  # folder in which answers are kept; they quote reports
    usage: Usage = field(default_factory=Usage, init=False, repr=False, compare=False)
    _memory: dict[str, Reply] = field(default_factory=dict, init=False, repr=False, compare=False)

    kind = "llm"  # the judge's name in the table

    def __post_init__(self) -> None:
        for name, least in (
            ("concurrency", 1),
            ("retries", 0),
            ("max_tokens", 1),
            ("context_tokens", 1),
            ("batch_size", 1),
            ("timeout", 1e-3),
        ):
            if getattr(self, name) != "auto" and getattr(self, name) < least:
                raise RecipeError(f"{self.kind}: {name} is {getattr(self, name)}; it must be at least {least:g}")
        if self.url is not None:
            from chexalign.llm.endpoint import base_url

            if self.model is None:
                raise RecipeError(f"{self.kind}: url needs model, the name under which the endpoint serves it")
            self.url = base_url(self.url, self.allow_remote)
        elif self.allow_remote or self.api_key_env:
            raise RecipeError(f"{self.kind}: allow_remote and api_key_env are for an endpoint; add url")
        if self.answers is not None and self.model is not None:
            raise RecipeError(f"{self.kind}: answers and model exclude each other")

    @property
    def has_model(self) -> bool:
        """Whether a model or a file of answers is given; without one, a judge that can works offline by rules."""
        return (self.model or self.answers) is not None

    @property
    def model_name(self) -> str:
        """The last part of the model's name or path, as it stands in tables; the version tells two of one name apart."""
        if self.model:
            return Path(self.model).name
        return f"answers {getattr(self._backend, 'version', '')}" if self.has_model else "no model"

    @property
    def llm_version(self) -> str:
        """What of the model can change a score. The address is not part of it, the options of the request are."""
        length = f"auto of {self.context_tokens}" if self.max_tokens == "auto" else str(self.max_tokens)
        more = f", {json.dumps(self.extra, sort_keys=True)}" if self.extra else ""
        here = f" {fingerprint(self.model)}" if self.url is None and self.model and Path(self.model).is_dir() else ""
        return f"model {self.model or self.model_name}{here}, {length} tokens, temperature 0{more}"

    @cached_property
    def _backend(self) -> Backend:
        if self.answers is not None:
            from chexalign.llm.canned import Canned

            return Canned(Path(self.answers), self.usage)
        if self.model is None:
            raise RecipeError(f"{self.kind} needs a language model: {NEEDS}")
        if self.url is None:
            from chexalign.llm.local import Local

            return Local(self.model, self.usage, self.batch_size, self.max_tokens, self.download, self.context_tokens)
        from chexalign.llm.endpoint import LlmClient

        return LlmClient(
            self.url,
            self.model,
            self.usage,
            api_key_env=self.api_key_env,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
            max_tokens=self.max_tokens,
            context_tokens=self.context_tokens,
            extra=self.extra,
        )

    def ask(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """One answer per prompt, in order; equal prompts are asked once, remembered ones not at all."""
        started = time.monotonic()
        keys = [disk.key(f"reply 1, {self.llm_version}", json.dumps(p, ensure_ascii=False)) for p in prompts]
        store = disk.open_store(self.cache, self.kind)
        found: dict[str, Answer] = {k: self._memory[k] for k in keys if k in self._memory}
        wanted = [k for k in dict.fromkeys(keys) if k not in found]
        if store is not None:
            found |= {k: Reply(**disk.unpack_json(raw)) for k, raw in store.get_many(wanted).items()}
        self.usage.add(remembered=sum(k in found for k in keys))
        missing = {k: p for k, p in zip(keys, prompts, strict=True) if k not in found}
        new = dict(zip(missing, self._backend(list(missing.values())) if missing else [], strict=True))
        good = {k: a for k, a in new.items() if isinstance(a, Reply)}
        if store is not None:
            store.put_many({k: disk.pack_json(asdict(a)) for k, a in good.items()})
        self.usage.add(failed=len(new) - len(good), seconds=time.monotonic() - started)
        found |= new
        self._remember({k: a for k, a in found.items() if isinstance(a, Reply)})
        return [found[k] for k in keys]

    def _remember(self, replies: dict[str, Reply]) -> None:
        for key, reply in replies.items():
            self._memory.pop(key, None)
            self._memory[key] = reply
        for key in list(self._memory)[: max(0, len(self._memory) - MEMORY)]:
            del self._memory[key]

    def summary(self) -> str | None:
        """What asking has cost so far, in one line; None when nothing was asked."""
        return f"{self.kind}: {self.usage.line()}" if self.usage.requests or self.usage.remembered else None


NEEDS = "set url and model (an OpenAI-compatible endpoint), or model alone (a checkpoint in this process)"


def missing_model(**options: Any) -> str | None:
    """For JUDGES: why a judge that cannot do without a language model cannot run here, or None."""
    if options.get("answers") is None and options.get("model") is None:
        return f"no language model is named; {NEEDS} under judges: in the recipe"
    return missing_parts(**options)


def missing_parts(**options: Any) -> str | None:
    """Why the language model that is named cannot be asked from here, or None. The endpoint itself is not tried."""
    model, key, answers = options.get("model"), options.get("api_key_env"), options.get("answers")
    if answers is not None and not Path(answers).is_file():
        return f"answers: there is no file {answers}"
    if key and not os.environ.get(key):
        return f"the environment variable {key} (api_key_env) is not set; export it and run again"
    if model and not options.get("url") and not options.get("download"):
        looks_local = model.startswith((".", "/", "~")) or model.count("/") > 1
        if looks_local and not Path(model).is_dir():
            return f"there is no checkpoint folder {model}"
    return None


def prompt_text(name: str) -> tuple[str, str]:
    """A prompt file beside the judges, and the start of its hash, for versions."""
    text = files("chexalign.judges.prompted").joinpath(f"prompts/{name}").read_text(encoding="utf-8")
    return text, hashlib.sha256(text.encode()).hexdigest()[:8]


def fill(template: str, **fields: str) -> str:
    """Put texts into a template's {{NAME}} places, in one pass, so that a report cannot open a place of its own."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def abstained(reason: Abstain, **details: Any) -> Judgement:
    """A Judgement without a score. `details` tell the stage `score` whether asking again may help (see score.py)."""
    if isinstance(reason, Passing):
        details["passing"] = True
    if isinstance(reason, Unavailable):
        details["unavailable"] = True
    return Judgement(None, str(reason), details)
