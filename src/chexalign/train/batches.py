"""Which examples make an optimizer step, how they are cut into forward passes, and which process takes which."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """The order of examples in one epoch: a permutation fixed by (seed, epoch)."""
    return np.random.default_rng((seed, epoch)).permutation(n).tolist()


def batches(n: int, batch_size: int, seed: int, steps: int) -> Iterator[tuple[int, list[int]]]:
    """(epoch, indices) for every optimizer step. The last batch of an epoch may be smaller; none is skipped."""
    done, epoch = 0, 0
    while done < steps:
        order = epoch_order(n, seed, epoch)
        for start in range(0, n, batch_size):
            if done == steps:
                return
            yield epoch, order[start : start + batch_size]
            done += 1
        epoch += 1


def steps_for(n: int, batch_size: int, epochs: int) -> int:
    """Optimizer steps of `epochs` passes over n examples; the last batch of an epoch may be smaller."""
    return epochs * math.ceil(n / batch_size)


def micro_batches(
    items: Sequence[Item], size: Callable[[Item], int], most: int, tokens: int | None = None
) -> list[list[Item]]:
    """Cut a batch, sorted by size, into forward passes of at most `most` items and `tokens` padded tokens.

    A pass of n items takes n times the size of its largest. An item above the budget makes a pass of its own.
    """
    cut: list[list[Item]] = []
    for item in sorted(items, key=size):
        full = not cut or len(cut[-1]) == most
        if full or (tokens is not None and (len(cut[-1]) + 1) * size(item) > tokens):
            cut.append([])
        cut[-1].append(item)
    return cut


def shard(items: Sequence[Item], rank: int, processes: int) -> tuple[list[Item], list[float]]:
    """One process's part of a forward pass with its weights; sizes are dealt in turn.

    A process that would have nothing gets the first item with weight 0: all must make the same number of passes.
    """
    mine = list(items[rank::processes])
    return (mine, [1.0] * len(mine)) if mine else ([items[0]], [0.0])
