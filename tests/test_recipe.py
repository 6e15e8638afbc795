from pathlib import Path

import pytest

from chexalign.errors import RecipeError
from chexalign.recipe.files import build_recipe, load_recipe, parse_yaml
from chexalign.recipe.train import ALGORITHM_NAMES
from chexalign.train.online.algorithms import ONLINE
from chexalign.train.preference.algorithms import ALGORITHMS

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
BASE = {"name": "x", "studies": {"source": "phantom"}, "warmup": {}}


EXPERIMENTS = sorted(
    p for p in RECIPES.rglob("*.yaml") if p.parent.name != "accelerate"
)  # those are Accelerate's configs


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_recipe_loads_and_opens_with_its_command(path):
    recipe = load_recipe(str(path))
    assert recipe.name == path.stem
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# chexalign ") and path.stem in first and second.startswith("# ")
    if recipe.quick:
        load_recipe(str(path), quick=True)


def test_there_are_recipes():
    assert {"tiny", "demo", "iu_xray_smoke"} <= {p.stem for p in RECIPES.glob("*.yaml")}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sampel": {}}, "unknown key 'sampel'; did you mean 'sample'?"),
        ({"sample": {"temprature": 1}}, "unknown key 'sample.temprature'; did you mean 'temperature'?"),
        ({"train": {"algorithm": {"type": "dpo", "betta": 0.1}}}, "did you mean 'beta'?"),
        ({"warmup": {"tower": {"steps": 5, "batchsize": 2}}}, "did you mean 'batch_size'?"),
        ({"min_margin": 0.1}, "did you mean 'pairs.min_margin'?"),
        ({"train": {"lr": "fast"}}, "train.lr: Input should be a valid number"),
        ({"train": {"algorithm": "dop"}}, "'dpo'"),
        ({"pairs": {"judge": "bertscore"}}, "pairs.judge 'bertscore' is not among score.judges"),
        ({"warmup": None}, "add a `warmup:` section"),
        ({"policy": {"prompt": "a { b"}}, "policy.prompt: expected '}'"),
        ({"policy": {"prompt": "Given {indicatoin}"}}, "no field ['indicatoin']"),
        ({"policy": {"tiny": {"heads": 3}}}, "must be multiples of heads 3"),
        ({"train": {"freeze": ["tower", "projector", "decoder"]}}, "nothing would learn"),
        ({"sample": {"n": 1}}, "greater than or equal to 2"),
        ({"evaluate": {"headline": []}}, "at least 1 item"),
        ({"name": "../evil"}, "name: String should match"),
    ],
)
def test_a_wrong_recipe_gets_one_clear_line(section, message):
    with pytest.raises(RecipeError) as error:
        build_recipe({**BASE, **section}, "r.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_numbers_are_numbers():
    assert parse_yaml("5e-7") == 5e-7 and parse_yaml("-1E3") == -1000.0 and parse_yaml("2e") == "2e"
    assert build_recipe({**BASE, "train": parse_yaml("{lr: 5e-7}")}, "r").train.lr == 5e-7


def test_overrides_and_short_forms():
    recipe = load_recipe("tiny", ["train.algorithm=ipo", "train.algorithm.tau=0.5", "sample.n=2", "run_dir=/tmp/x"])
    assert recipe.train.algorithm.type == "ipo" and recipe.train.algorithm.tau == 0.5
    assert recipe.sample.n == 2 and recipe.run_dir == Path("/tmp/x")


@pytest.mark.parametrize("text", ["sample.n", "sample.n.x=1", "sample.n=[", "sampel.n=1"])
def test_a_wrong_override_gets_one_clear_line(text):
    with pytest.raises(RecipeError) as error:
        load_recipe("tiny", [text])
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'demo'"):
        load_recipe("demmo")
    with pytest.raises(RecipeError, match="no recipe '/nonexistent/recipes/tiny.yaml'"):
        load_recipe("/nonexistent/recipes/tiny.yaml")
    with pytest.raises(RecipeError, match="defines no quick form"):
        load_recipe("tiny", quick=True)


def test_a_key_given_twice_is_an_error(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: twice\nseed: 1\nseed: 2\n")
    with pytest.raises(RecipeError, match="given twice: seed"):
        load_recipe(str(path))


def test_every_algorithm_of_a_recipe_has_a_loss():
    assert set(ALGORITHM_NAMES) == set(ALGORITHMS) | set(ONLINE) and not set(ALGORITHMS) & set(ONLINE)
