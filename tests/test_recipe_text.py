import gzip
import subprocess
import sys

import pytest

from chexalign.errors import RecipeError
from chexalign.recipe.files import build_recipe, load_recipe
from chexalign.recipe.text import parse_yaml

PLAIN = "name: y\nstudies: {source: phantom, n: 40}\npolicy: {model: tiny}\nwarmup: {tower: {steps: 1}}\n"
LAUGHS = "quick:\n  a0: &a0 [lol, lol]\n" + "".join(f"  a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
NESTED = "min(rouge_l, " * 60 + "rouge_l" + ")" * 60


@pytest.mark.parametrize(
    "text, value",
    [
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("{a: &x {b: 1}, c: {<<: *x, d: [*x, *x]}}", {"a": {"b": 1}, "c": {"b": 1, "d": [{"b": 1}, {"b": 1}]}}),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    read = parse_yaml(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "wrong, told",
    [
        (LAUGHS, "aliases that unfold to more than"),
        ("quick: &q {a: *q}", "an anchor that holds itself"),
        ("quick: " + "[" * 3000 + "]" * 3000, "nested more than 50 deep"),
        ("quick: " + "{a: " * 60 + "1" + "}" * 60, "nested more than 50 deep"),
        ("seed: " + "9" * 5000, "a number of 5000 digits"),
        ("seed: 18446744073709551616", "seed: Input should be less than 4294967296"),
        ("seed: -1", "seed: Input should be greater than or equal to 0"),
        ("seed: true", "seed is true, where another kind of value belongs"),
        ("seed: on", "seed: Input should be a valid integer"),
        ("train: {seed: -1}", "train.seed: Input should be greater than or equal to 0"),
        ("sweep: {seeds: [1, -1]}", "sweep.seeds.1: Input should be greater than or equal to 0"),
        ("evaluate: {level: .nan}", "evaluate.level: Input should be a finite number"),
        ("sample: {temperature: .inf}", "sample.temperature: Input should be a finite number"),
        ("train: {lr: .nan}", "train.lr: Input should be a finite number"),
        ("run_dir: /dev/null", "run_dir: /dev/null is a file"),
        ("run_dir: /dev/null/deeper", "run_dir: /dev/null is a file"),
        ('run_dir: "a\\0b"', "no folder can be called so"),
        ("run_dir: " + "x" * 300, "no folder can be called so"),
        ("seed: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_what_no_recipe_may_hold_is_one_short_line(tmp_path, wrong, told):
    (tmp_path / "r.yaml").write_text(PLAIN + wrong)
    with pytest.raises(RecipeError, match=told) as error:
        load_recipe(str(tmp_path / "r.yaml"))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("prompt", ["{indication:>1000000000}", "{indication!r}", "{indication:{findings}}", "a { b"])
def test_prompts_hold_plain_fields(tmp_path, prompt):
    with pytest.raises(RecipeError, match="policy.prompt"):
        build_recipe({**parse_yaml(PLAIN), "policy": {"model": "tiny", "prompt": prompt}}, "r")


@pytest.mark.parametrize(
    "data, told",
    [
        (gzip.compress(PLAIN.encode()), "packed with gzip"),
        (PLAIN.encode("utf-16"), "not UTF-8"),
        ((PLAIN + "# Röntgen").encode("latin-1"), "not UTF-8"),
        (b"#" * (1 << 21), "larger than a recipe"),
    ],
)
def test_only_utf_8_text_is_a_recipe(tmp_path, data, told):
    (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(RecipeError, match=told):
        load_recipe(str(tmp_path / "r.yaml"))


def test_a_byte_order_mark_is_passed_by(tmp_path):
    (tmp_path / "r.yaml").write_text("\ufeff" + PLAIN)
    assert load_recipe(str(tmp_path / "r.yaml")).name == "y"


def test_a_judge_nested_without_end_is_refused_at_once():
    code = f"from chexalign.judges.line import parse\nparse({NESTED!r}, {{}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "RecipeError: judge" in done.stderr and "nested more than 10 deep" in done.stderr


def test_phantoms_are_drawn_from_32_pixels_on(tmp_path):
    with pytest.raises(RecipeError, match="studies.image_size: Input should be greater than or equal to 32"):
        build_recipe({**parse_yaml(PLAIN), "studies": {"source": "phantom", "image_size": 1}}, "r")
