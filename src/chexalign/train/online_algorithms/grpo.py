"""GRPO (Shao et al. 2024), with the settings of Dr.GRPO and GSPO: the shared parts as they are."""

from __future__ import annotations

from chexalign.train.online_algorithms.base import OnlineAlgorithm

ALGORITHM = OnlineAlgorithm()
