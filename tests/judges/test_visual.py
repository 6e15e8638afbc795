"""The visual judge on tiny random CLIP and SigLIP models of the real classes."""

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from chexalign.errors import RecipeError
from chexalign.judges import load
from chexalign.judges.combine import rank
from chexalign.judges.contract import reward
from chexalign.judges.neural.two_towers import open_two_towers
from chexalign.judges.neural.visual import missing, visual
from chexalign.judges.request import RewardRequest
from chexalign.policies.checkpoints.tiny import build_tokenizer
from chexalign.records import Study

TEXTS = ["There is a small left pleural effusion.", "The heart is normal in size.", "No pneumothorax."]
LIMIT = 12
SIDE = {"height": 32, "width": 32}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def save_siglip(folder):
    tokenizer = build_tokenizer(TEXTS, 300)
    tokenizer.padding_side, tokenizer.model_input_names = "right", ["input_ids"]
    text = {**TOWER, "vocab_size": 300, "max_position_embeddings": LIMIT, "projection_size": 16}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = SiglipConfig(text_config={**text, **ids}, vision_config={**TOWER, "image_size": 32, "patch_size": 16})
    SiglipModel(config).save_pretrained(folder)
    SiglipProcessor(SiglipImageProcessorPil(size=SIDE), tokenizer).save_pretrained(folder)


def save_clip(folder):
    tokenizer = build_tokenizer(TEXTS, 300)
    tokenizer.padding_side = "right"
    ends = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.backend_tokenizer.post_processor = ends  # CLIP reads a text at its end-of-text token
    text = {
        **TOWER,
        "vocab_size": 300,
        "max_position_embeddings": LIMIT,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision = {**TOWER, "image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(size=SIDE, crop_size=SIDE), tokenizer).save_pretrained(folder)


@pytest.fixture(scope="module", params=[save_siglip, save_clip], ids=["siglip", "clip"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_towers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        request.param(folder)
    return str(folder)


def study(*names, name="s"):
    return Study(study_id=name, patient_id="p", split="test", images=tuple((n, "frontal") for n in names))


STUDIES = [study(f"{i}.png", name=f"s{i}") for i in range(3)]


def score(judge, reports, studies):
    return [a.score for a in judge.score(reports, [""] * len(reports), studies)]


def test_the_score_is_the_cosine_that_the_model_itself_gives(model, image_folder):
    """By hand: processor, both towers, dot product of unit rows."""
    towers = open_two_towers(model, download=False, trust_remote_code=False, device="cpu")
    picture = Image.open(image_folder / "0.png").convert("RGB")
    pixels = towers.processor.image_processor(images=picture, return_tensors="pt")
    siglip = isinstance(towers.model, SiglipModel)
    for text in TEXTS[1:]:
        ids = towers.processor.tokenizer(
            text, return_tensors="pt", truncation=True, max_length=LIMIT, padding="max_length" if siglip else False
        )
        with torch.no_grad():
            a = towers.model.get_image_features(**pixels).pooler_output[0]
            b = towers.model.get_text_features(**ids).pooler_output[0]
        by_hand = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
        assert score(visual(model=model, images=image_folder), [text], [STUDIES[0]]) == [
            pytest.approx(by_hand, abs=2e-6)
        ]


def test_a_batch_gives_what_its_rows_give_in_any_order_and_again(model, image_folder):
    rows = [(t, s) for t in [*TEXTS, "left " * 50, ".", "İ ½ 🫁 \ud800"] for s in STUDIES]
    reports, studies = map(list, zip(*rows, strict=True))
    together = score(visual(model=model, images=image_folder), reports, studies)
    alone = [score(visual(model=model, images=image_folder), [t], [s])[0] for t, s in rows]
    assert together == pytest.approx(alone, abs=2e-6)
    assert together == score(visual(model=model, images=image_folder), reports[::-1], studies[::-1])[::-1]
    assert all(-1 <= x <= 1 for x in together) and len(set(together)) > 10
    assert together[12:15] == [-1.0] * 3  # "." says nothing: the worst score there is


def test_a_group_of_equal_texts_ties_and_ranks_are_valors(model, image_folder):
    judge = rank(visual(model=model, images=image_folder))
    reports, one = [TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2]], [STUDIES[0]] * 4
    answers = reward(judge, RewardRequest(reports, [""] * 4, one, ["g"] * 4))
    raw = [a.details["raw_score"] for a in answers]
    assert raw[0] == raw[2] and answers[0].score == answers[2].score
    best = max(range(4), key=raw.__getitem__)
    assert answers[best].score == max(a.score for a in answers) and sum(a.score for a in answers) == pytest.approx(2)


def test_several_images_are_averaged_or_the_best_counts(model, image_folder):
    two = study("0.png", "1.png")
    each = score(visual(model=model, images=image_folder), [TEXTS[0]] * 2, STUDIES[:2])
    assert score(visual(model=model, images=image_folder), TEXTS[:1], [two]) == [pytest.approx(sum(each) / 2, abs=2e-6)]
    assert score(visual(model=model, images=image_folder, pool="max"), TEXTS[:1], [two]) == [max(each)]
    details = visual(model=model, images=image_folder).score(TEXTS[:1], [""], [two])[0].details
    assert details["per_image"] == each


LONG = " ".join(f"zone {n}" for n in range(50))


def test_what_the_text_tower_cannot_read_is_counted(model, image_folder):
    judge = visual(model=model, images=image_folder)
    long, short = judge.score([LONG, "left"], ["", ""], STUDIES[:2])
    tokens = judge.towers().count([LONG])[0]
    assert tokens > LIMIT and long.details["tokens_not_read"] == tokens - LIMIT
    assert "tokens_not_read" not in short.details
    start, *_ = judge.score([LONG[: LONG.index("zone 40")]], [""], STUDIES[:1])
    assert start.score == long.score  # nothing behind the limit counts


def test_it_abstains_with_a_reason_and_the_good_rows_survive(model, image_folder, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a png")
    (tmp_path / "0.png").write_bytes((image_folder / "0.png").read_bytes())
    judge = visual(model=model, images=tmp_path)
    bad = [study(), study("gone.png"), study("broken.png"), study("../../etc/passwd"), study("0.png", "broken.png")]
    *others, good = judge.score([TEXTS[0]] * 6, [""] * 6, [*bad, study("0.png")])
    assert [a.score for a in others] == [None] * 5 and good.score is not None
    said = [
        "has no image",
        "gone.png is missing",
        "broken.png cannot be decoded",
        "leaves",
        "broken.png cannot be decoded",
    ]
    assert all(words in a.error for words, a in zip(said, others, strict=True))
    assert judge.score(TEXTS, [""] * 3)[0].error == "no study was given, and this judge looks at its image"
    with pytest.raises(ValueError, match="2 reports but 1 studies"):
        judge.score(["a", "b"], ["", ""], STUDIES[:1])
    with pytest.raises(RecipeError, match=r"judges\.visual\.images is missing"):
        visual(model=model).score(["a"], [""], STUDIES[:1])


def test_each_image_and_text_is_encoded_once_and_remembered_on_disk(model, image_folder, tmp_path, monkeypatch):
    from chexalign.judges.neural.two_towers import TwoTowers

    seen = {"images": 0, "texts": 0}
    for what in seen:
        plain = getattr(TwoTowers, what)

        def counted(self, items, what=what, plain=plain):
            seen[what] += len(items)
            return plain(self, items)

        monkeypatch.setattr(TwoTowers, what, counted)
    copy = tmp_path / "copy.png"
    copy.write_bytes((image_folder / "0.png").read_bytes())
    judge = visual(model=model, images=image_folder, cache=str(tmp_path / "cache"))
    first = score(judge, [TEXTS[0], TEXTS[1], TEXTS[0]], [STUDIES[0], STUDIES[0], STUDIES[1]])
    score(judge, TEXTS[:2], STUDIES[:2])
    assert seen == {"images": 2, "texts": 2}
    again = visual(model=model, images=tmp_path, cache=str(tmp_path / "cache"))
    assert score(again, [TEXTS[0]], [study("copy.png")]) == first[:1]  # the same content under another name
    assert seen == {"images": 2, "texts": 2}
    copy.write_bytes((image_folder / "1.png").read_bytes())
    assert score(again, [TEXTS[0]], [study("copy.png")]) == first[2:]  # the same name, new content


def test_another_model_has_another_version(model, image_folder, tmp_path):
    save_siglip(tmp_path)
    one, other = visual(model=model), visual(model=str(tmp_path))
    assert one.version != other.version and one.version != visual(model=model, pool="max").version
    assert np.isfinite(score(visual(model=str(tmp_path), images=image_folder), TEXTS[:1], STUDIES[:1])[0])


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError(f"network: {args[:2]}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)


def test_what_cannot_be_used_is_refused_with_a_remedy(tmp_path, no_network):
    def refused(model, said, **options):
        with pytest.raises(RecipeError, match=said):
            visual(model=model, images=tmp_path, **options).score(["a"], [""], [study("x.png")])

    Image.new("L", (32, 32)).save(tmp_path / "x.png")
    refused(None, "no expert is given; set model")
    refused(str(tmp_path / "run" / "expert"), r"expert is missing; add `expert: \{steps: 300\}`")
    refused(
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        "stored for open_clip.*natively load: StanfordAIMI/XraySigLIP",
    )
    refused("microsoft/BiomedVLP-BioViL-T", "two checkpoints")
    refused(str(tmp_path / "nothing"), "cannot load .*nothing")
    bert = tmp_path / "bert"
    BertModel(BertConfig(vocab_size=300, **TOWER)).save_pretrained(bert)
    build_tokenizer(TEXTS, 300).save_pretrained(bert)
    refused(str(bert), "is a BertModel, which has not both towers")
    half = tmp_path / "half"
    save_siglip(half)
    from safetensors.torch import load_file, save_file

    weights = load_file(half / "model.safetensors")
    weights.pop("text_model.head.weight")
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    refused(str(half), "lacks 1 of its tensors .first: text_model.head.weight")


def test_missing_says_what_to_give(tmp_path):
    assert "no expert is given" in missing()
    assert missing(model="runs/x/expert") is None and missing(model=str(tmp_path)) is None
    assert (
        "allow the hub" in missing(model="google/medsiglip-448")
        and missing(model="google/medsiglip-448", download=True) is None
    )
    assert load("visual").name == "visual"
