"""CheXagent-2 against what its published code answered (recorded; see tests/fixtures/chexagent2/README.md)."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.policies.test_shared_prefix import COMPLETIONS, assert_same_gradients, gradients, plain_logps
from transformers import AutoConfig

from chexalign.errors import RecipeError
from chexalign.policies import Policy, Prompt, build_prompt, verify_chexagent2
from chexalign.policies.checkpoints import chexagent2
from chexalign.policies.forward.logps import encode_prefix
from chexalign.policies.forward.tower_features import can_store
from chexalign.records import Study

FIXTURE = Path(__file__).parents[1] / "fixtures" / "chexagent2"
RECORDED = torch.load(FIXTURE / "reference_4.40.0.pt", weights_only=True)
CASES = {"one": ("im1.png",), "gray": ("im2.png",), "two": ("im1.png", "im2.png"), "none": ()}
QUESTION = "Write a structured findings section for the CXR.  Two  spaces"
FP32 = 5e-6  # kernels of this processor and of the recording's; the smallest wrong reading (tanh-gelu tower) costs 7e-4


def study(images=()) -> Study:
    views = tuple((name, "frontal") for name in images)
    return Study(study_id="s", patient_id="p", split="test", images=views, indication="Cough", findings="x")


def prompt(policy, images=(), template=QUESTION) -> Prompt:
    return build_prompt(study(images), template, policy.processor, FIXTURE, 2)


@pytest.fixture(scope="module")
def published() -> Policy:
    """The checkpoint in the published layout, opened the ordinary way; tests that change it load their own."""
    return Policy.load(FIXTURE / "model")


@pytest.fixture
def own() -> Policy:
    return Policy.load(FIXTURE / "model")


@pytest.fixture
def copy(tmp_path) -> Path:
    """A checkpoint folder to break, with its tower's settings beside it."""
    for part in ("model", "XraySigLIP__tiny"):
        shutil.copytree(FIXTURE / part, tmp_path / part)
    return tmp_path / "model"


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# ---- parity with the published code


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("case", CASES)
def test_the_published_code_is_reproduced(published, case, attention):
    recorded = RECORDED[case]
    published.model.set_attn_implementation(attention)
    ours = prompt(published, CASES[case])
    assert ours.text == re.sub(r"<\|img\|>.*?<\|/img\|>", "<|img|><|imgpad|><|/img|>", recorded["text"])
    prefix = published.encode([ours])
    start, end, pad = published.tokenizer.convert_tokens_to_ids(["<|img|>", "<|/img|>", "<|imgpad|>"])
    ids = recorded["ids"].clone()
    for i, j in zip(*((ids[0] == tag).nonzero().flatten().tolist() for tag in (start, end)), strict=True):
        ids[0, i + 1 : j] = pad  # the published code keeps the file's path there and overwrites its embeddings
    assert torch.equal(prefix.ids, ids)
    inputs = {"input_ids": prefix.ids, "attention_mask": prefix.mask, **prefix.extra}
    with torch.no_grad():
        logits = published.model(**inputs).logits[:, -32:]
        greedy = published.model.generate(**inputs, do_sample=False, max_new_tokens=16)[0, ids.shape[1] :]
    assert float((logits - recorded["logits_last32"]).abs().max()) < FP32
    assert torch.equal(greedy, recorded["gen"])


def test_image_features_are_the_published_ones(published):
    pixels = published.encode([prompt(published, CASES["two"])]).extra["pixel_values"]
    with torch.no_grad():
        features = published.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    assert float((torch.stack(list(features))[:, ::64] - RECORDED["feats_every64"]).abs().max()) < FP32


@pytest.mark.parametrize("case", ["none", "one", "two"])
def test_rendered_prompts(published, case):
    pictures = {
        "none": "",
        "one": "Picture 1:<|img|><|imgpad|><|/img|>\n",
        "two": "Picture 1:<|img|><|imgpad|><|/img|>\nPicture 2:<|img|><|imgpad|><|/img|>\n",
    }[case]
    ours = prompt(published, CASES[case], 'Given the indication: "{indication}", write it.')
    assert ours.text == (
        "<|system|>\nYou are a helpful assistant.<|endoftext|>\n"
        f'<|user|>\n{pictures}Given the indication: "Cough", write it.<|endoftext|>\n<|assistant|>\n'
    )
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert published.processor.apply_chat_template(turns) == (
        "<|system|>\nBe brief.<|endoftext|>\n<|user|>\nHello<|endoftext|>\n"
    )


# ---- the real size: names and numbers


SETTINGS = {  # of its published configuration
    "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5,
    "resid_pdrop": 0.1, "embd_pdrop": 0.0, "attention_dropout": 0.0, "max_position_embeddings": 2048,
    "rope_theta": 10000.0, "rope_scaling": None, "partial_rotary_factor": 0.4, "qk_layernorm": False,
    "tie_word_embeddings": False, "bos_token_id": 50256, "eos_token_id": 50256,
    "visual": {"image_size": 512, "output_dim": 2560, "vision_model_name_or_path": "StanfordAIMI/XraySigLIP"},
}  # fmt: skip
TOWER = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 512, "hidden_act": "gelu",
}  # fmt: skip


def published_names() -> list[str]:
    """The tensors of CheXagent-2-3b, as its published checkpoint names them."""
    wb = ("weight", "bias")
    decoder = (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense", "mlp.fc1", "mlp.fc2",
        "input_layernorm",
    )  # fmt: skip
    block = (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "layer_norm1", "layer_norm2",
        "mlp.fc1", "mlp.fc2",
    )  # fmt: skip
    head = [f"{m}.{p}" for m in ("attention.out_proj", "layernorm", "mlp.fc1", "mlp.fc2") for p in wb]
    head += ["probe", "attention.in_proj_weight", "attention.in_proj_bias"]
    embeddings = ("patch_embedding.weight", "patch_embedding.bias", "position_embedding.weight")
    visual = [f"encoder.layers.{n}.{m}.{p}" for n in range(24) for m in block for p in wb]
    visual += [f"embeddings.{e}" for e in embeddings] + [f"post_layernorm.{p}" for p in wb]
    visual += [f"head.{h}" for h in head]
    return [
        "model.embed_tokens.weight",
        *(f"model.layers.{n}.{m}.{p}" for n in range(32) for m in decoder for p in wb),
        *(f"model.final_layernorm.{p}" for p in wb),
        *(f"model.visual.model.{v}" for v in visual),
        *(f"model.visual.{m}.{p}" for m in ("attn_pool.0", "attn_pool.2", "ln_post") for p in wb),
        *("model.visual.pos_embed", "model.visual.proj", "lm_head.weight", "lm_head.bias"),
    ]


def renamed(name: str) -> str:
    for pattern, place in chexagent2.RENAMES.items():
        name, found = re.subn(pattern, place, name)
        if found:
            break
    return name


def test_every_published_tensor_has_one_place_at_full_size():
    with torch.device("meta"):
        model = chexagent2.CheXagent2ForConditionalGeneration(chexagent2.build_config(SETTINGS, TOWER, 50297))
    names, state = published_names(), model.state_dict()
    assert len(names) == 861 and sorted(map(renamed, names)) == sorted(state)
    assert sum(t.numel() for t in state.values()) == 3_140_746_752
    assert model.config.text_config.rope_parameters["partial_rotary_factor"] == 0.4
    assert model.config.vision_config.hidden_act == "gelu" and model.config.image_seq_length == 1024


# ---- what is refused


def save_tensors(copy: Path, change) -> None:
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("lm_head.bias"), r"missing weights: lm_head.bias"),
        (lambda t: t.pop("model.visual.pos_embed"), r"missing weights: model.multi_modal_projector.pos_embed"),
        (
            lambda t: t.update({"model.visual.attn_pool.4.bias": torch.zeros(3)}),
            "weights without a place: .*attn_pool.4.bias",
        ),
        (
            lambda t: t.update({"model.visual.proj": torch.zeros(3, 3)}),
            "weights of another shape: .*multi_modal_projector.proj",
        ),
        (lambda t: [t.pop(k) for k in list(t) if "layers.2." in k], "missing weights: .* and 27 more"),
    ],
)
def test_a_misfit_tensor_is_refused(copy, change, message):
    save_tensors(copy, change)
    with pytest.raises(RecipeError, match=message):
        Policy.load(copy)


@pytest.mark.parametrize("field", chexagent2.TEXT_FIELDS)
def test_an_absent_setting_is_refused_by_name(field):
    settings = {k: v for k, v in SETTINGS.items() if k != field}
    with pytest.raises(RecipeError, match=rf"config.json has no {field};"):
        chexagent2.build_config(settings, TOWER, 50297)


@pytest.mark.parametrize("field", chexagent2.TOWER_FIELDS)
def test_an_absent_tower_setting_is_refused_by_name(field):
    with pytest.raises(RecipeError, match=rf"XraySigLIP's vision_config has no {field};"):
        chexagent2.build_config(SETTINGS, {k: v for k, v in TOWER.items() if k != field}, 50297)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("rope_scaling", {"type": "linear"}, "rope_scaling"), ("hidden_size", 1280, "output_dim"), ("hidden_act", 3, "")],
)
def test_a_setting_that_does_not_fit_is_refused(name, value, message):
    with pytest.raises(RecipeError, match=f"config.json: .*{message}"):
        chexagent2.build_config({**SETTINGS, name: value}, TOWER, 50297)


@pytest.mark.parametrize(
    ("file", "field", "message"),
    [
        ("model/config.json", "visual", "config.json has no visual"),
        ("XraySigLIP__tiny/preprocessor_config.json", "image_mean", "preprocessor_config.json has no image_mean"),
    ],
)
def test_absent_fields_of_the_files(copy, file, field, message):
    edit(copy.parent / file, lambda c: c.pop(field))
    with pytest.raises(RecipeError, match=message):
        Policy.load(copy)


def test_a_tokenizer_without_image_tags_is_refused(copy):
    for file in copy.glob("*token*.json"):
        file.write_text(file.read_text().replace("<|img|>", "<|other|>"))
    with pytest.raises(RecipeError, match=r"tokenizer has no <\|img\|>"):
        Policy.load(copy)


def test_the_tower_settings_are_found_beside_the_checkpoint_or_asked_for(copy):
    shutil.move(copy.parent / "XraySigLIP__tiny", copy.parent / "elsewhere")
    with pytest.raises(RecipeError, match="in a folder XraySigLIP__tiny beside the checkpoint"):
        Policy.load(copy)
    edit(copy / "config.json", lambda c: c["visual"].update(vision_model_name_or_path=str(copy.parent / "elsewhere")))
    assert chexagent2.describe(copy)[0].vision_config.hidden_act == "gelu"


def test_shards_open_like_one_file(copy, published):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    places = {name: f"model-{1 + i % 3:05}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({n: t for n, t in tensors.items() if places[n] == file}, copy / file, {"format": "pt"})
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    state = published.model.state_dict()
    assert all(torch.equal(state[n], t) for n, t in Policy.load(copy).model.state_dict().items())


def test_another_model_and_half_precision_are_refused(tiny_folder):
    with pytest.raises(RecipeError, match="not a CheXagent-2"):
        chexagent2.load(tiny_folder)
    with pytest.raises(RecipeError, match="float16 overflows"):
        Policy.load(FIXTURE / "model", dtype="float16")


def test_pickled_weights_are_not_opened(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match="safetensors"):
        Policy.load(copy)


# ---- the ordinary path: scoring, sampling, freezing, saving


@pytest.mark.parametrize("stored", [False, True])
def test_shared_prefix_equals_plain(own, stored):
    if stored:
        own.freeze(("tower",))
    prompts = [prompt(own, CASES["one"]), prompt(own)]
    shared = own.token_logps(prompts, [COMPLETIONS] * 2)  # one batch: the text-only prompt is padded by 1037
    own.reuse_features, total_shared, total_plain = False, torch.zeros(()), torch.zeros(())
    for row, (one, group) in enumerate(zip(prompts, shared, strict=True)):
        prefix = own.encode([one])
        for weight, (tokens, logps) in enumerate(zip(COMPLETIONS, group, strict=True), 1 + 3 * row):
            expected = plain_logps(own.model, prefix, tokens)
            assert torch.allclose(logps, expected, atol=1e-5)
            total_shared, total_plain = total_shared + weight * logps.sum(), total_plain + weight * expected.sum()
    assert_same_gradients(gradients(own.model, total_shared), gradients(own.model, total_plain))


def test_stored_features_are_what_the_projector_reads(own):
    own.freeze(("tower",))
    core = own.model.model
    assert can_store(core)
    stored = own.encode([prompt(own, CASES["two"])])
    own.reuse_features = False
    seen = own.encode([prompt(own, CASES["two"])])
    assert stored.extra["stored_feature_0"].shape == (2, 1024, 32) and "pixel_values" not in stored.extra
    with torch.no_grad():
        assert torch.equal(encode_prefix(own.model, stored).last, encode_prefix(own.model, seen).last)


def test_end_of_text_inside_a_prompt_is_not_padding(published):
    prefix = published.encode([prompt(published), prompt(published, CASES["one"])])
    eos = published.tokenizer.eos_token_id
    assert published.tokenizer.pad_token_id == eos
    padding = prefix.ids.shape[1] - RECORDED["none"]["ids"].shape[1]
    assert prefix.mask[0].tolist() == [0] * padding + [1] * (prefix.ids.shape[1] - padding)
    assert prefix.mask[1].all()
    assert ((prefix.ids == eos) & (prefix.mask == 1)).sum(1).tolist() == [2, 2]  # after the system and user turns


def test_sampling_draws_only_what_can_be_decoded(published):
    assert published.model.lm_head.out_features == 512 and len(published.tokenizer) == 320
    prompts = [prompt(published), prompt(published, CASES["one"])]
    for temperature in (0.0, 1.0):
        groups = published.generate(prompts, 4, temperature, 12, seed=3)
        assert all(max(s.tokens) < 320 for g in groups for s in g)
        assert all(isinstance(published.text(s.tokens), str) for g in groups for s in g)
        with torch.no_grad():
            again = published.token_logps(prompts, [[s.tokens for s in g] for g in groups])
        for group, logps in zip(groups, again, strict=True):  # over the whole vocabulary, as in training
            assert [s.logp for s in group] == pytest.approx([float(x.sum()) for x in logps], abs=1e-3)


def test_rows_beyond_the_tokenizer_are_never_drawn_from_any_model(policy, prompts):
    known = len(policy.tokenizer)
    policy.model.resize_token_embeddings(known + 200, mean_resizing=False)
    groups = policy.generate(prompts, 4, 1.0, 16, seed=1)
    assert all(max(s.tokens) < known for g in groups for s in g)
    assert {s.finish_reason for g in groups for s in g} <= {"stop", "length"}


@pytest.mark.parametrize("part", ["tower", "projector", "decoder"])
def test_freezing_by_part(own, part):
    inside = {"tower": "vision_tower", "projector": "multi_modal_projector", "decoder": "language_model"}[part]
    own.freeze((part,))
    frozen = {n for n, p in own.model.named_parameters() if not p.requires_grad}
    prefixes = (f"model.{inside}.", *(["lm_head."] if part == "decoder" else []))
    assert frozen == {n for n, _ in own.model.named_parameters() if n.startswith(prefixes)} and frozen
    assert own.part(part) is getattr(own.model.model, inside)
    assert "model.multi_modal_projector.pos_embed" not in dict(own.model.named_parameters())  # a table, never learnt


def test_saved_folders_are_native_and_open_again(own, tmp_path):
    with torch.no_grad():
        own.model.lm_head.bias += 0.5
    own.save(tmp_path / "a")
    again = Policy.load(tmp_path / "a")
    again.save(tmp_path / "b")
    third = Policy.load(tmp_path / "b")
    for folder in ("a", "b"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            assert set(file.keys()) == set(own.model.state_dict())
    state = own.model.state_dict()
    assert all(torch.equal(state[n], t) for n, t in third.model.state_dict().items())
    ours, theirs = prompt(own, CASES["one"]), prompt(third, CASES["one"])
    assert ours == theirs
    a, b = own.encode([ours]), third.encode([theirs])
    assert torch.equal(a.ids, b.ids) and torch.equal(a.extra["pixel_values"], b.extra["pixel_values"])
    with torch.no_grad():
        assert torch.equal(encode_prefix(own.model, a).last, encode_prefix(third.model, b).last)
    assert third.stop_ids == own.stop_ids == {own.tokenizer.eos_token_id}
    with pytest.raises(ValueError, match="chexagent2"):  # stock LLaVA would open it and drop the head's bias
        AutoConfig.from_pretrained(tmp_path / "a")
    (tmp_path / "a" / "processor_config.json").unlink()
    with pytest.raises(RecipeError):
        Policy.load(tmp_path / "a")


def test_a_saved_folder_that_lost_a_tensor_is_refused(own, tmp_path):
    own.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.multi_modal_projector.proj"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecipeError, match=r"missing weights: model.multi_modal_projector.proj"):
        Policy.load(tmp_path)


def test_bfloat16_covers_every_tensor():
    model = Policy.load(FIXTURE / "model", dtype="bfloat16").model
    assert {t.dtype for t in model.state_dict().values()} == {torch.bfloat16}


# ---- the verification command


def test_verification_finds_agreement_and_disagreement(tmp_path, capsys):
    kept = tmp_path / "reference.pt"
    arguments = ["--model", str(FIXTURE / "model"), "--tower", str(FIXTURE / "XraySigLIP__tiny")]
    arguments += ["--image", str(FIXTURE / "im1.png"), "--tokens", "4", "--reference", str(kept)]
    ours, rows = verify_chexagent2.native(verify_chexagent2.parse(arguments))
    assert all(ok for _, ok, _ in rows)
    table = verify_chexagent2.position_table(32, 32)
    assert (
        float((table - Policy.load(FIXTURE / "model").model.model.multi_modal_projector.pos_embed).abs().max()) < 1e-5
    )
    torch.save(ours, kept)
    assert verify_chexagent2.main(arguments) == 0
    wrong = ours | {"logits": ours["logits"] + 1.0, "tower_config": ours["tower_config"] | {"hidden_act": "gelu_tanh"}}
    torch.save(wrong, kept)
    assert verify_chexagent2.main(arguments) == 1
    failed = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed == ["FAIL tower settings", "FAIL logits"]


def test_verification_of_a_broken_checkpoint_says_so(copy, capsys):
    save_tensors(copy, lambda t: t.pop("lm_head.bias"))
    arguments = [
        "--model",
        str(copy),
        "--tower",
        str(FIXTURE / "XraySigLIP__tiny"),
        "--image",
        str(FIXTURE / "im1.png"),
    ]
    assert verify_chexagent2.main(arguments) == 1
    assert "FAIL" in (said := capsys.readouterr().out) and "lm_head.bias" in said
