"""Two processes over gloo learn what one learns, and go on after kill -9 of all; the shipped Accelerate configs parse."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tests.driver import OVERRIDES

from chexalign import processes
from chexalign.errors import RecipeError
from chexalign.recipe.files import load_recipe
from chexalign.run.folder import Run
from chexalign.stages.train import align

CONFIGS = Path(__file__).resolve().parents[2] / "recipes/accelerate"
# Micro-batches of 3 and a last batch of 5 of 37 pairs: shards are uneven, and some processes get nothing to learn from.
SETTINGS = [*OVERRIDES, "train.micro_batch_size=3", "train.lr=1e-3", "train.batch_size=8"]
JOBS = {
    "kto": ["train.algorithm={type: kto, beta: 0.5}"],
    "lora": ["train.algorithm={type: dpo, beta: 1.0}", "train.lora={r: 4}", "train.micro_batch_tokens=160"],
    "dpo": ["train.algorithm={type: dpo, beta: 0.5, nll: 0.1}", "train.ema=0.5"],
}
# Trains the jobs one after the other; the last one stops answering at its sixth log row, half a line on the disk.
PROGRAM = """
import sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from chexalign import processes
from chexalign.recipe.files import load_recipe
from chexalign.run.folder import Run
from chexalign.train import loop
from chexalign.stages.train import align

def hanging(self, row, write=loop.Trainer._append_log):
    write(self, row)
    if row["step"] == 5 and "dpo" in str(self.log) and processes.is_main():
        with open(self.log, "a") as handle:
            handle.write('{"step": 6, "torn')
        time.sleep(600)

loop.Trainer._append_log = hanging
with processes.joined():
    for folder in sys.argv[1:]:
        settings = Path(folder, "settings.txt").read_text().splitlines()
        align(Run(load_recipe("tiny", settings), Path(folder), {"stages": {}}))
"""

# FSDP 2 over gloo: Accelerate ties FSDP to GPUs, so it is told that these two processes have some.
SHARDED = """
import os, sys
settings = {"USE_FSDP": "true"}, {"VERSION": "2", "AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "STATE_DICT_TYPE": "SHARDED_STATE_DICT", "RESHARD_AFTER_FORWARD": "true"}
os.environ |= {f"{a}_{k}": v for a, group in zip(("ACCELERATE", "FSDP"), settings) for k, v in group.items()}
import torch
torch.set_num_threads(1)
from pathlib import Path
from accelerate.state import DistributedType, PartialState
from chexalign import processes
from chexalign.recipe.files import load_recipe
from chexalign.run.folder import Run
from chexalign.train import loop
from chexalign.stages.train import align

accelerator = loop.Accelerator
loop.Accelerator = lambda cpu, **named: accelerator(**named)
with processes.joined():
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    folder = Path(sys.argv[1])
    align(Run(load_recipe("tiny", (folder / "settings.txt").read_text().splitlines()), folder, {"stages": {}}))
    assert accelerator().distributed_type == DistributedType.FSDP
"""


def settings_of(job: str, folder: Path) -> list[str]:
    return [f"run_dir={folder}", *SETTINGS, *JOBS[job]]


def before_training(tiny_run: Path, folder: Path, job: str) -> Path:
    """A copy of the finished run as it was before stage `train`."""
    left_out = shutil.ignore_patterns("policy", "evaluation", "examples", "train_log.jsonl", "results.json")
    shutil.copytree(tiny_run, folder, ignore=left_out)
    manifest = json.loads((folder / "manifest.json").read_text())
    for stage in ("train", "evaluate"):
        del manifest["stages"][stage]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "settings.txt").write_text("\n".join(settings_of(job, folder)))
    return folder


def alone(job: str, folder: Path) -> None:
    align(Run(load_recipe("tiny", settings_of(job, folder)), folder, {"stages": {}}))


def launch(*arguments: str | Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    start = ["accelerate.commands.launch", "--config_file", CONFIGS / "ddp_cpu.yaml", "--main_process_port", "0"]
    command = [sys.executable, "-m", *map(str, start), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_all(launcher: subprocess.Popen) -> None:
    everyone = [*psutil.Process(launcher.pid).children(recursive=True), launcher]
    for process in everyone:
        process.kill()
    psutil.wait_procs(everyone[:-1], timeout=10)
    launcher.communicate()


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory) -> dict[str, Path]:
    """Folders trained by one process (`kto`, …) and by two (`kto.2`, …). `dpo.2` was killed; `dpo.21` is it resumed by one."""
    root, program = tmp_path_factory.mktemp("processes"), tmp_path_factory.mktemp("program") / "jobs.py"
    program.write_text(PROGRAM)
    folders = {name: before_training(tiny_run, root / name, name[:-2]) for name in (f"{job}.2" for job in JOBS)}
    launcher, log = launch(program, *folders.values()), folders["dpo.2"] / "train_log.jsonl"
    folders |= {job: before_training(tiny_run, root / job, job) for job in JOBS}
    for job in JOBS:
        alone(job, folders[job])
    end = time.monotonic() + 120
    while not (log.exists() and "torn" in log.read_text()):
        assert launcher.poll() is None and time.monotonic() < end, launcher.communicate()[0][-3000:]
        time.sleep(0.05)
    kill_all(launcher)
    assert not (folders["dpo.2"] / "policy").exists()
    folders["dpo.21"] = root / "dpo.21"
    shutil.copytree(folders["dpo.2"], folders["dpo.21"])
    folders["lora.fsdp"] = before_training(tiny_run, root / "lora.fsdp", "lora")
    (program.parent / "sharded.py").write_text(SHARDED)
    sharded = launch(program.parent / "sharded.py", folders["lora.fsdp"])
    again = launch("-m", "chexalign", "train", "tiny", *settings_of("dpo", folders["dpo.2"]))
    alone("dpo", folders["dpo.21"])
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output[-3000:]
    (root / "output.txt").write_text(output)
    told = sharded.communicate(timeout=120)[0]
    assert sharded.returncode == 0, told[-3000:]
    return folders | {"output": root / "output.txt"}


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = [p for n in ("model", "adapter_model") if (p := folder / f"policy/{n}.safetensors").exists()]
    return load_file(found[0])


@pytest.mark.parametrize("two", ["kto.2", "lora.2", "lora.fsdp", "dpo.2", "dpo.21"])
def test_two_processes_learn_what_one_learns(trained, two):
    one = two.partition(".")[0]
    single, double = rows(trained[one]), rows(trained[two])
    assert [r["step"] for r in single] == [r["step"] for r in double] == list(range(10))
    for name in set(single[0]) - {"seconds"}:
        first = 2 if name == "accuracy" else 0  # at first margins are zero but for rounding, of either sign
        values = [[r[name] for r in log[first:]] for log in (double, single)]
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=1e-5), name
    ours, theirs = weights(trained[one]), weights(trained[two])
    assert ours.keys() == theirs.keys()
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 1e-5
    assert abs(single[0]["loss"] - single[-1]["loss"]) > 1e-2  # it did learn


def test_the_main_process_talks_alone_and_nothing_is_left(trained):
    output = trained["output"].read_text()
    assert output.count("training (dpo): 10/10 steps") == 1 and len(re.findall(r"train: (\d+) in, \1 out", output)) == 1
    assert "Warning" not in output
    for name in ("kto.2", "lora.2", "dpo.2"):
        left = [
            p for p in trained[name].rglob("*") if p.name in ("train", "checkpoint") or p.suffix in (".tmp", ".new")
        ]
        assert not left
    manifest = json.loads((trained["dpo.2"] / "manifest.json").read_text())
    assert manifest["stages"]["train"]["finished"]


# ---- launches that cannot mean what was meant


def test_other_stages_are_refused_under_a_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    processes.check_launch(["train"], ("warmup", "train"))
    with pytest.raises(RecipeError, match="together on warmup and train, not on sample"):
        processes.check_launch(["sample", "train"], ("warmup", "train"))


def test_a_launcher_that_starts_one_process_only_is_named(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    processes.check_launch(["train"], ("train",))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(RecipeError, match="ddp_cpu.yaml"):
        processes.check_launch(["train"], ("train",))


# ---- the shipped configs, read by Accelerate's own loader


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("ddp_cpu", "MULTI_GPU", {"use_cpu": True}),
        ("ddp_gpu", "MULTI_GPU", {"use_cpu": False}),
        ("fsdp", "FSDP", {"use_cpu": False}),
        ("zero3", "DEEPSPEED", {"use_cpu": False}),
    ],
)
def test_configs_parse(name, kind, fields):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert config.distributed_type == kind and config.mixed_precision == "no"
    assert {k: getattr(config, k) for k in fields} == fields
    launched = [
        "--config_file",
        str(CONFIGS / f"{name}.yaml"),
        "--num_processes",
        "4",
        "-m",
        "chexalign",
        "train",
        "tiny",
    ]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(launched))
    assert arguments.num_processes == 4 and arguments.module and arguments.mixed_precision == "no"
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed) == tuple(
        kind == k for k in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    )
    if name == "fsdp":
        assert arguments.fsdp_version == 2 and arguments.fsdp_auto_wrap_policy == "TRANSFORMER_BASED_WRAP"
        assert arguments.fsdp_state_dict_type == "SHARDED_STATE_DICT" and arguments.fsdp_reshard_after_forward
    if name == "zero3":
        assert arguments.zero_stage == 3 and arguments.gradient_accumulation_steps == 1
        assert arguments.zero3_save_16bit_model and not arguments.zero3_init_flag
