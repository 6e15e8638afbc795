"""What docs/start/your-data.md promises: its row, its recipe and `chexalign check`, on a checkpoint without a warm-up."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.docs.blocks import ROOT, blocks

from chexalign.recipe.files import load_recipe
from chexalign.stages.check import check_recipe

PAGE = ROOT / "docs/start/your-data.md"
RECIPES = [*blocks("yaml")]
OWN = [b for b in RECIPES if b.page in (PAGE, ROOT / "README.md")]
ROW = next(b for b in blocks("json") if b.page == PAGE)


@pytest.fixture
def reports(tmp_path):
    """The page's row forty times over, each for another patient."""
    folder = tmp_path / "my_reports"
    folder.mkdir()
    row = json.loads(ROW.text)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)).save(folder / row["images"][0])
    rows = [row | {"study_id": f"a{i}", "patient_id": f"p{i}"} for i in range(40)]
    (folder / "studies.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.mark.parametrize("block", OWN, ids=str)
def test_the_recipes_for_your_own_data_pass_the_check(block, reports, tiny_folder, tmp_path):
    assert len(OWN) == 3 and "warmup" not in yaml.safe_load(block.text)
    (tmp_path / "mine.yaml").write_text(block.text)
    here = [f"studies.root={reports}", f"policy.model={tiny_folder}", "sample.max_new_tokens=100"]
    found = list(check_recipe(load_recipe(str(tmp_path / "mine.yaml"), here)))
    assert [line for fine, line in found if not fine] == []
    assert any("40 studies" in line for _, line in found)
