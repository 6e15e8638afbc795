"""CheXbert from its original file: the true shape and names, the classes, what is refused; and F1 on its labels."""

import pickle
import string

import pytest
import torch
from transformers import BertConfig, BertModel

from chexalign.errors import RecipeError
from chexalign.judges import load
from chexalign.judges.contract import Judgement
from chexalign.judges.neural.chexbert import load_chexbert, read_state
from chexalign.judges.neural.chexbert_f1 import chexbert_f1, corpus_chexbert_f1, missing
from chexalign.labels import LABELS

WORDS = ["no", "pleural", "effusion", "edema", "heart", "is", "large", "."]
TINY = BertConfig(
    vocab_size=96,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=512,
)


def tensors(shape: BertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint, by hand (transformers 2.5 and DataParallel saved it)."""
    h, i = shape.hidden_size, shape.intermediate_size
    found = {
        f"embeddings.{n}_embeddings.weight": (k, h)
        for n, k in (("word", shape.vocab_size), ("position", 512), ("token_type", 2))
    }
    norms, dense = ["embeddings"], {"pooler.dense": (h, h)}
    for layer in range(shape.num_hidden_layers):
        at = f"encoder.layer.{layer}"
        dense |= {f"{at}.attention.self.{n}": (h, h) for n in ("query", "key", "value")}
        dense |= {
            f"{at}.attention.output.dense": (h, h),
            f"{at}.intermediate.dense": (i, h),
            f"{at}.output.dense": (h, i),
        }
        norms += [f"{at}.attention.output", f"{at}.output"]
    found |= {f"{n}.LayerNorm.{k}": (h,) for n in norms for k in ("weight", "bias")}
    found |= {f"{n}.weight": size for n, size in dense.items()} | {f"{n}.bias": size[:1] for n, size in dense.items()}
    heads = {f"linear_heads.{j}": 2 if j == 13 else 4 for j in range(14)}
    return {
        **{f"bert.{n}": size for n, size in found.items()},
        **{f"{n}.weight": (k, h) for n, k in heads.items()},
        **{f"{n}.bias": (k,) for n, k in heads.items()},
    }


def size_of(shape):
    return 0.3 if shape.hidden_size > 100 else 1.0  # large enough that different reports get different labels


def saved(folder, shape=TINY, *, prefix="module.", change=None, old_format=False, wrap=True):
    """A random checkpoint in the published form, and the vocabulary that goes with it."""
    make = torch.Generator().manual_seed(0)
    state = {
        prefix + n: torch.empty(size).uniform_(-size_of(shape), size_of(shape), generator=make)
        for n, size in tensors(shape).items()
    }
    state[f"{prefix}bert.embeddings.position_ids"] = torch.arange(512)[None]  # old transformers saved this constant
    (change or (lambda s: None))(state)
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 2e-5, "params": [0]}]}
    whole = {"epoch": 4, "model_state_dict": state, "optimizer_state_dict": optimizer} if wrap else state
    torch.save(whole, folder / "chexbert.pth", _use_new_zipfile_serialization=not old_format)
    letters = [mark + c for c in string.ascii_lowercase for mark in ("", "##")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    vocabulary += [f"[unused{i}]" for i in range(shape.vocab_size - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder / "chexbert.pth"


def opened(folder, shape=TINY):
    return load_chexbert(folder / "chexbert.pth", str(folder / "vocab.txt"), download=False, device="cpu", shape=shape)


@pytest.fixture
def tiny(tmp_path):
    saved(tmp_path)
    return opened(tmp_path)


def by_hand(folder, shape, ids):
    """The class of each head for one report, with nothing of ours between the file and the answer."""
    state = {
        n.removeprefix("module."): t
        for n, t in torch.load(folder / "chexbert.pth", weights_only=True)["model_state_dict"].items()
    }
    bert = BertModel(shape).eval()
    bert.load_state_dict(
        {n.removeprefix("bert."): t for n, t in state.items() if n.startswith("bert.") and "position_ids" not in n}
    )
    with torch.no_grad():
        first = bert(torch.tensor([ids])).last_hidden_state[0, 0]
    logits = [state[f"linear_heads.{j}.weight"] @ first + state[f"linear_heads.{j}.bias"] for j in range(14)]
    return logits, [int(x.argmax()) for x in logits]


def test_the_true_shape_loads_and_gives_what_bert_and_14_linear_maps_give(tmp_path):
    """110 million parameters under the published names; the answer is compared number by number."""
    shape = BertConfig()
    assert (
        sum(torch.Size(s).numel() for s in tensors(shape).values()) == 109_482_240 + 14 * 768 * 4 - 768 * 2 + 13 * 4 + 2
    )
    saved(tmp_path, shape)
    labeller = load_chexbert(tmp_path / "chexbert.pth", str(tmp_path / "vocab.txt"), download=False, device="cpu")
    ids = labeller.encode("No pleural effusion.")
    assert ids == [2, 5, 6, 7, 12, 3]  # [CLS] no pleural effusion . [SEP]: lower case, as bert-base-uncased
    logits, classes = by_hand(tmp_path, shape, ids)
    with torch.no_grad():
        ours = labeller.model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    assert [tuple(x.shape) for x in ours] == [(1, 4)] * 13 + [(1, 2)]
    assert max(float((a[0] - b).abs().max()) for a, b in zip(ours, logits, strict=True)) < 1e-4
    assert labeller.classes(["No pleural effusion."]) == [classes]


def test_classes_become_statuses_in_the_published_order(tiny, monkeypatch):
    """0 blank, 1 positive, 2 negative, 3 uncertain; No Finding, the last of the 14, is blank or positive."""
    assert LABELS[0] == "Enlarged Cardiomediastinum" and LABELS[9] == "Pleural Effusion" and LABELS[13] == "No Finding"
    monkeypatch.setattr(type(tiny), "classes", lambda self, texts: [[0, 1, 2, 3] + [0] * 9 + [1]])
    found = tiny(["x"])[0]
    assert list(found) == list(LABELS)
    assert list(found.values())[:4] == [None, 1, 0, -1] and found["No Finding"] == 1 and found["Fracture"] is None


TEXTS = [
    "No edema.",
    "heart " * 700,
    "",
    "The heart is large.  No\npleural effusion.",
    "zzz",
    "No edema.",
    "İ ½ 🫁 \ud800",
]


def test_a_batch_gives_what_its_reports_give_one_by_one(tiny, tmp_path):
    together = tiny.classes(TEXTS)
    assert together == [tiny.classes([t])[0] for t in TEXTS] == tiny.classes(TEXTS[::-1])[::-1]
    assert len({tuple(row) for row in together}) > 1  # the test could tell them apart
    for text, row in zip(TEXTS[:4], together, strict=False):
        assert row == by_hand(tmp_path, TINY, tiny.encode(text))[1]


def test_long_reports_are_cut_to_511_tokens_and_sep_and_white_space_does_not_count(tiny):
    ids = tiny.encode("heart " * 700)
    assert len(ids) == 512 and ids[0] == 2 and ids[-1] == 3 and set(ids[1:-1]) == {9}
    assert tiny.encode(" no \n\n edema ") == tiny.encode("no edema")
    assert tiny.encode("") == [2, 3]


def test_batches_hold_like_lengths_and_no_more_tokens_than_allowed(tiny):
    ids = [[0] * n for n in (5, 512, 6, 4000, 5, 700)]
    batches = tiny._batches(ids)
    assert sorted(i for b in batches for i in b) == list(range(6))
    assert all(len(b) == 1 or len(b) * max(len(ids[i]) for i in b) <= tiny.tokens for b in batches)
    assert [0, 4, 2, 1, 5] in batches or len(batches[0]) >= 3


@pytest.mark.parametrize("form", [{"prefix": ""}, {"old_format": True}, {"wrap": False}])
def test_other_forms_of_the_same_weights_give_the_same(tmp_path, tiny, form):
    (tmp_path / "b").mkdir()
    saved(tmp_path / "b", **form)
    assert opened(tmp_path / "b").classes(TEXTS) == tiny.classes(TEXTS)


def drop(name):
    return lambda state: state.pop(name)


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    head = "module.linear_heads.13.weight"
    for change, said in (
        (drop("module.bert.encoder.layer.1.output.dense.bias"), "lacks bert.encoder.layer.1.output.dense.bias"),
        (lambda s: s.update({"module.bert.extra": torch.zeros(1)}), "holds unknown bert.extra"),
        (lambda s: s.update({head: torch.zeros(4, 16)}), "has another shape for linear_heads.13.weight"),
        (lambda s: s.clear(), "and 64 more"),
    ):
        saved(tmp_path, change=change)
        with pytest.raises(RecipeError, match=said):
            opened(tmp_path)
    saved(tmp_path)
    with pytest.raises(RecipeError, match="holds unknown bert.encoder.layer.1"):
        opened(tmp_path, BertConfig(**{**TINY.to_dict(), "num_hidden_layers": 1}))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(RecipeError, match="has 5 words, .* has 96"):
        opened(tmp_path)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_file_that_brings_code_or_is_damaged_is_refused(tmp_path, capsys):
    path = tmp_path / "chexbert.pth"
    for content in (pickle.dumps({"model_state_dict": Evil()}, protocol=2), b"not weights", b""):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match="cannot be read as weights"):
            read_state(path)
    torch.save({"model_state_dict": Evil()}, path)
    with pytest.raises(RecipeError, match="cannot be read as weights"):
        read_state(path)
    assert "code ran" not in capsys.readouterr().out
    torch.save([1, 2], path)
    with pytest.raises(RecipeError, match="holds no `model_state_dict`"):
        read_state(path)
    with pytest.raises(RecipeError, match="are missing; give the path of chexbert.pth"):
        read_state(tmp_path / "other.pth")


# ---- the judge


def judge(folder, monkeypatch, **options):
    monkeypatch.setattr("chexalign.judges.neural.chexbert.BertConfig", lambda: TINY)
    return chexbert_f1(weights=folder / "chexbert.pth", tokenizer=str(folder / "vocab.txt"), **options)


ROWS = {
    "one": {"Cardiomegaly": 1, "Edema": -1, "Fracture": 1, "Atelectasis": 0},
    "other": {"Cardiomegaly": 1, "Edema": 1, "Lung Lesion": 1, "No Finding": 1},
    "normal": {"No Finding": 1},
}


@pytest.fixture
def rows(monkeypatch):
    whole = {text: {**dict.fromkeys(LABELS), **row} for text, row in ROWS.items()}
    monkeypatch.setattr(
        "chexalign.judges.neural.chexbert.Labeller.__call__", lambda self, texts: [whole[t] for t in texts]
    )


def test_f1_by_hand_over_13_14_and_5_labels_uncertain_each_way(tmp_path, monkeypatch, rows):
    """Report: Cardiomegaly, Edema?, Fracture. Reference: Cardiomegaly, Edema, Lung Lesion, No Finding."""
    saved(tmp_path)

    def ask(**options):
        return judge(tmp_path, monkeypatch, **options).score(["one"], ["other"])[0]

    first = ask()
    assert first.score == pytest.approx(2 * 2 / (3 + 3))
    assert first.details == {"tp": ["Cardiomegaly", "Edema"], "fp": ["Fracture"], "fn": ["Lung Lesion"]}
    assert ask(variant="14").score == pytest.approx(2 * 2 / (3 + 4))
    assert ask(variant="5").score == 1
    assert ask(variant="5", uncertain="negative").score == pytest.approx(2 * 1 / (1 + 2))
    assert ask(uncertain="ignore").score == pytest.approx(2 * 1 / (2 + 2))


def test_corpus_f1_by_hand(tmp_path, monkeypatch, rows):
    """Five labels: (report, reference) has tp 2; (normal, reference) has fn 2; (normal, normal) has nothing."""
    saved(tmp_path)
    reports, references = ["one", "normal", "normal"], ["other", "other", "normal"]
    found = corpus_chexbert_f1(judge(tmp_path, monkeypatch), reports, references, variant="5")
    assert found["micro"] == pytest.approx(2 * 2 / (4 + 2)) and found["example"] == pytest.approx((1 + 0 + 1) / 3)
    assert found["macro"] == pytest.approx(
        (2 / 3 + 2 / 3) / 5
    )  # cardiomegaly and edema; classes that never occur count 0


def test_the_judge_reads_each_text_once_and_remembers_on_disk(tmp_path, monkeypatch):
    saved(tmp_path)
    read = []
    monkeypatch.setattr(
        "chexalign.judges.neural.chexbert.Labeller.classes",
        lambda s, texts: [read.append(t) or [1] * 14 for t in texts],
    )
    first = judge(tmp_path, monkeypatch, cache=str(tmp_path / "cache"))
    assert [a.score for a in first.score(["a", "b", "a", ".", "b"], ["b", "b", "b", "b", ""])] == [1, 1, 1, 0, None]
    assert sorted(read) == ["a", "b"]
    again = judge(tmp_path, monkeypatch, cache=str(tmp_path / "cache"))
    assert again.score(["a"], ["b"])[0].score == 1 and len(read) == 2
    assert first.score(["x"], [" "]) == [Judgement(None, "the reference is empty")]


def test_names_and_versions_tell_what_was_measured(tmp_path, monkeypatch):
    saved(tmp_path)
    one, other = judge(tmp_path, monkeypatch), judge(tmp_path, monkeypatch, variant="5", uncertain="negative")
    assert (one.name, other.name) == ("chexbert_f1", "chexbert_f1[5]") and one.version != other.version
    saved(tmp_path, change=lambda s: s["module.linear_heads.0.bias"].add_(1))
    assert judge(tmp_path, monkeypatch).version != one.version


def test_without_weights_one_line_says_what_to_give(tmp_path):
    with pytest.raises(RecipeError, match="chexbert_f1: its weights are not given; set weights: chexbert.pth"):
        load("chexbert_f1").score(["a"], ["b"])
    assert "are missing" in missing(weights=tmp_path / "none.pth", tokenizer="bert-base-uncased")
    saved(tmp_path)
    given = {"weights": tmp_path / "chexbert.pth", "tokenizer": "bert-base-uncased"}
    assert "no local path" in missing(**given) and missing(**given, download=True) is None
    with pytest.raises(RecipeError, match="no tokenizer at"):
        load_chexbert(given["weights"], str(tmp_path / "nowhere"), download=False, device="cpu", shape=TINY)
