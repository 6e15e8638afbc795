"""Which of several processes this is: `accelerate launch` and `torchrun` say so in the environment. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from chexalign.errors import RecipeError, WorkError

LONGEST_WAIT = timedelta(hours=12)  # for the main process, which may compute references while the others wait


def count() -> int:
    """Processes of this run over all machines (WORLD_SIZE); 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """This one's number over all machines (RANK), 0 for the one that writes files."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """True in the one process that writes to the run folder and talks to the person."""
    return rank() == 0


def check_launch(stages: list[str], able: tuple[str, ...]) -> None:
    """Raise RecipeError where a launch cannot mean what was meant."""
    environment = os.environ
    asked_in_vain = environment.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in environment
    if asked_in_vain and "WORLD_SIZE" not in environment:
        raise RecipeError(
            "`accelerate launch --cpu --num_processes N` starts one process where there is no mpirun; "
            "use `accelerate launch --config_file recipes/accelerate/ddp_cpu.yaml --num_processes N`"
        )
    if count() > 1 and (lone := [s for s in stages if s not in able]):
        raise RecipeError(
            f"several processes work together on {' and '.join(able)}, not on {lone[0]}: run `chexalign {lone[0]}` without a "
            "launcher"
        )


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes (NCCL on GPUs, gloo on CPUs) and take this one's GPU. Nothing to do for one process."""
    if count() == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    here = PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)
    yield
    here.wait_for_everyone()
    here.destroy_process_group()


def barrier() -> None:
    """Wait for everyone."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def main_alone(work: Callable[[], object]) -> None:
    """Run `work` in the main process while the others wait. If it fails, all end, and the main process says why."""
    if count() == 1:
        work()
        return
    import torch.distributed

    failure: list[BaseException | None] = [None]
    if is_main():
        try:
            work()
        except (RecipeError, WorkError, OSError) as error:
            failure = [error]
    code = [0 if failure[0] is None else 2 if isinstance(failure[0], RecipeError) else 1]
    torch.distributed.broadcast_object_list(code)
    if failure[0] is not None:
        raise failure[0]
    if code[0]:
        raise SystemExit(code[0])
