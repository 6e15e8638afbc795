"""Does the native CheXagent-2 reproduce the published code on the real weights? One command, nothing is downloaded:

python -m chexalign.policies.verify_chexagent2 --model DIR/CheXagent-2-3b --image one.png [two.png]
    --tower DIR/XraySigLIP__vit-l-16-siglip-384__webli --ref-python ~/tf440/bin/python [--device cuda]

--ref-python is another interpreter with transformers==4.40.0, torch, torchvision, requests and regex; giving it is the
user's consent to run the checkpoint's own (remote) code there, never in this process. Without it, only what needs no
reference is checked. Both sides run in fp32 (12.6 GB each for 3b). Compare on 8-bit images; exits 0 when all agree.
"""

# The other interpreter runs this file by its path: only the standard library is imported at the top.
from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SYSTEM = "You are a helpful assistant."
QUESTION = "Write a structured findings section for the CXR."
SPECIAL = ("<|endoftext|>", "<|img|>", "<|/img|>", "<|imgpad|>", "<|box|>", "<|/box|>")
UNUSED = (  # imported by the published code and never used
    "albumentations", "albumentations.pytorch", "cv2", "pyarrow", "einops", "matplotlib", "matplotlib.colors",
    "matplotlib.figure", "matplotlib.backends", "matplotlib.backends.backend_agg", "tensorflow",
)  # fmt: skip
Row = tuple[str, bool, str]  # what was checked, whether it holds, the numbers


# ---- the published side, in the other interpreter


def stub_unused() -> None:
    """Puts empty modules where the published code imports packages that it does not use here and that are absent."""
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError):  # absent, or its shared libraries are
            stub: Any = types.ModuleType(name)
            stub.__path__, stub.__spec__ = [], importlib.machinery.ModuleSpec(name, None, is_package=True)
            stub.ToTensorV2 = stub.rearrange = stub.FigureCanvasAgg = None
            sys.modules[name] = stub
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, stub)


def published(a: argparse.Namespace) -> dict[str, Any]:
    """Run the checkpoint's own code. The file paths in its placeholders, which it overwrites, become <|imgpad|>."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    stub_unused()
    import torch
    import transformers

    if transformers.__version__ != "4.40.0":
        sys.exit(f"--ref-python has transformers {transformers.__version__}; the published code wants 4.40.0")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(a.model, trust_remote_code=True)
    config = transformers.AutoConfig.from_pretrained(a.model, trust_remote_code=True)
    config.name_or_path, config.visual = a.model, {**config.visual, "vision_model_name_or_path": a.tower}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        a.model, config=config, trust_remote_code=True, torch_dtype=torch.float32, attn_implementation="eager"
    )
    model = model.eval().to(a.device)
    query = tokenizer.from_list_format([*[{"image": p} for p in a.image], {"text": a.prompt}])
    turns = [{"from": "system", "value": SYSTEM}, {"from": "human", "value": query}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt").to(a.device)
    special = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    visual = model.model.visual
    with torch.no_grad():
        pixels = torch.stack([visual.load_image(p, False) for p in a.image])
        features = visual(pixels.to(a.device))
        logits = model(ids, use_cache=False).logits
        answer = model.generate(ids, do_sample=False, num_beams=1, use_cache=True, max_new_tokens=a.tokens)
    answer_ids, ids = answer[0, ids.size(1) :].tolist(), ids.cpu()
    opened, closed = ((ids[0] == special[t]).nonzero().flatten().tolist() for t in ("<|img|>", "<|/img|>"))
    for start, end in zip(opened, closed):  # noqa: B905  the other interpreter may be Python 3.9
        ids[0, start + 1 : end] = special["<|imgpad|>"]
    return {
        "text": re.sub(r"<\|img\|>.*?<\|/img\|>", "<|img|><|imgpad|><|/img|>", text),
        "ids": ids,
        "pixels": pixels,
        "features": features.cpu(),
        "logits": logits.cpu(),
        "answer_ids": answer_ids,
        "answer": tokenizer.decode([i for i in answer_ids if i < len(tokenizer)]),
        "special": special,
        "text_config": json.loads(config.to_json_string(use_diff=False)),
        "tower_config": json.loads(visual.model.config.to_json_string(use_diff=False)),
        "mean_std": [list(visual.mean), list(visual.std)],
        "eos": model.generation_config.eos_token_id,
    }


# ---- the native side, here


def position_table(side: int, width: int) -> Any:
    """The 2-D sin-cos table that `pos_embed` must hold, (side², width): columns in the first half, then rows."""
    import torch

    rate = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.flatten()[:, None] * rate for place in (column, row)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()


def native(a: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    """The same outputs from the native class, and checks that need no reference. Loading refuses a misfit tensor."""
    import torch

    from chexalign.policies import Policy, Prompt
    from chexalign.policies.checkpoints import chexagent2

    model, processor = chexagent2.load(a.model, tower=a.tower)
    model.eval().to(a.device).set_attn_implementation("eager")
    policy = Policy(model, processor, a.model)
    content = [*[{"type": "image"} for _ in a.image], {"type": "text", "text": a.prompt}]
    turns = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    images = tuple(str(Path(p).resolve().relative_to("/")) for p in a.image)
    prefix = policy.encode([Prompt(text, images, Path("/"))])
    with torch.no_grad():
        features = model.get_image_features(pixel_values=prefix.extra["pixel_values"], return_dict=True).pooler_output
        logits = model(input_ids=prefix.ids, attention_mask=prefix.mask, **prefix.extra).logits
        answer = model.generate(
            input_ids=prefix.ids, attention_mask=prefix.mask, **prefix.extra, do_sample=False, max_new_tokens=a.tokens
        )[0, prefix.ids.shape[1] :].tolist()
    text_config, tower = model.config.text_config.to_dict(), model.config.vision_config
    outputs = {
        "text": text,
        "ids": prefix.ids.cpu(),
        "pixels": prefix.extra["pixel_values"].cpu(),
        "features": torch.stack(list(features)).cpu(),
        "logits": logits.cpu(),
        "answer_ids": answer,
        "answer": policy.text(answer),
        "special": {t: processor.tokenizer.convert_tokens_to_ids(t) for t in SPECIAL},
        "text_config": {k: {**text_config, **text_config["rope_parameters"]}[k] for k in chexagent2.TEXT_FIELDS},
        "tower_config": {k: getattr(tower, k) for k in (*chexagent2.TOWER_FIELDS, *chexagent2.TOWER_DEFAULTS)},
        "mean_std": [list(processor.image_processor.image_mean), list(processor.image_processor.image_std)],
        "eos": model.generation_config.eos_token_id,
    }
    table = model.model.multi_modal_projector.pos_embed.cpu()
    gap = (table - position_table(tower.image_size // tower.patch_size, tower.hidden_size)).abs().max().item()
    state = model.state_dict().values()
    return outputs, [
        ("every tensor has its place", True, f"{len(state)} tensors, {sum(t.numel() for t in state):,} numbers"),
        ("pos_embed is the 2-D sin-cos table", gap < 1e-4, f"max {gap:.1e}"),
        ("the answer is text", bool(outputs["answer"]), repr(outputs["answer"][:120])),
    ]


# ---- the two sides


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Row]:
    """One row per thing both sides computed. Tensors may differ by 1e-3 of the largest value, pixels by 1e-5."""

    def equal(name: str, key: str) -> Row:
        same = ours[key] == theirs[key]
        return name, same, repr(theirs[key])[:160] if same else f"{ours[key]!r} is not {theirs[key]!r}"

    def settings(name: str, key: str) -> Row:
        wrong = {k: (v, theirs[key].get(k)) for k, v in ours[key].items() if v != theirs[key].get(k)}
        return name, not wrong, f"(ours, theirs): {wrong}" if wrong else str(ours[key])

    def close(name: str, key: str, limit: float) -> Row:
        a, b = ours[key], theirs[key]
        if a.shape != b.shape:
            return name, False, f"shape {tuple(a.shape)} is not {tuple(b.shape)}"
        gap, scale = (a - b).abs().max().item(), b.abs().max().item()
        note = f"max {gap:.1e} of {scale:.1f}"
        if key == "logits":
            note += f"; top-1 equal at {(a.argmax(-1) == b.argmax(-1)).float().mean().item():.4f} of positions"
        return name, gap <= limit * max(scale, 1.0), note

    same_ids = ours["ids"].shape == theirs["ids"].shape and bool((ours["ids"] == theirs["ids"]).all())
    return [
        settings("decoder settings", "text_config"),
        settings("tower settings", "tower_config"),
        equal("pixel mean and deviation", "mean_std"),
        equal("end of text", "eos"),
        equal("special ids", "special"),
        equal("prompt", "text"),
        ("token ids", same_ids, f"{tuple(ours['ids'].shape)} and {tuple(theirs['ids'].shape)}"),
        close("pixels", "pixels", 1e-5),
        close("image features", "features", 1e-3),
        close("logits", "logits", 1e-3),
        ("greedy answer", ours["answer_ids"] == theirs["answer_ids"], repr(theirs["answer"][:120])),
    ]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--published` is for the call that this command makes of itself in the other interpreter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="local snapshot of CheXagent-2-3b or a -srrg- variant")
    parser.add_argument("--tower", required=True, help="local snapshot of the XraySigLIP repository")
    parser.add_argument("--image", nargs="+", required=True)
    parser.add_argument("--ref-python", help="interpreter with transformers 4.40.0 that may run the checkpoint's code")
    parser.add_argument("--reference", default="chexagent2_reference.pt", help="where the published outputs are kept")
    parser.add_argument("--prompt", default=QUESTION)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--published", action="store_true", help=argparse.SUPPRESS)  # set for the other interpreter
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one line per check; the exit status is 0 when all hold and 1 otherwise."""
    a = parse(argv)
    import torch

    if a.published:
        torch.save(published(a), a.reference)
        return 0
    if a.ref_python:
        again = [*(sys.argv[1:] if argv is None else argv), "--published"]
        done = subprocess.run([a.ref_python, "-I", __file__, *again])  # -I: this folder stays off its path
        if done.returncode:
            print(f"FAIL the published code did not run in {a.ref_python} (exit {done.returncode}); see above")
            return 1
    from chexalign.errors import RecipeError

    try:
        ours, rows = native(a)
    except RecipeError as error:
        print(f"FAIL {error}")
        return 1
    if Path(a.reference).is_file():
        rows += compare(ours, torch.load(a.reference, weights_only=True))
    else:
        print("no published outputs to compare with: give --ref-python")
    for name, ok, note in rows:
        print(f"{'ok  ' if ok else 'FAIL'} {name:36s} {note}")
    return 0 if all(ok for _, ok, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
