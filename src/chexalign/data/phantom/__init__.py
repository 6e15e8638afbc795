"""The `phantom` source: radiographs drawn with known findings, and reports written about them.

Unlimited, free of patients and exact: the labels are what was drawn. Study `index` of seed `seed` is always the same,
whatever else was made before it.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from chexalign.data.phantom.draw import draw_places
from chexalign.data.phantom.law import Finding, draw_findings, labels
from chexalign.data.phantom.text import write_findings, write_impression, write_indication
from chexalign.jsonl import atomic_write
from chexalign.records import Study

__all__ = ["Finding", "make_study", "phantom"]

Streams = Callable[[str], np.random.Generator]


def streams(*key: int) -> Streams:
    """Random streams by name: the same key and name always give the same numbers, and no two names share any."""
    return lambda name: np.random.default_rng([*key, zlib.crc32(name.encode())])


def patient_of(index: int) -> int:
    """The first study of this study's patient: 0 and 1, 6 and 7, … belong together, so that a fifth have two."""
    return index - index % 2 if index % 6 < 2 else index


def make_study(seed: int, index: int, image_size: int, split: str = "train") -> tuple[Study, np.ndarray]:
    """One study and its frontal radiograph, uint8 (image_size, image_size), the patient's left on the image's right."""
    study, patient = streams(seed, 0, index), streams(seed, 1, patient_of(index))
    findings = draw_findings(study("findings"))
    image, places = draw_places(findings, patient, study, image_size)
    findings = tuple(replace(f, box=box, parts=parts) for f, (box, parts) in zip(findings, places, strict=True))
    study_id = f"phantom-{seed}-{index:06d}"
    record = Study(
        study_id=study_id,
        patient_id=_patient_id(seed, index),
        split=split,
        images=((f"images/{study_id}.png", "frontal"),),
        indication=write_indication(study("indication"), findings),
        findings=write_findings(study("report"), findings),
        impression=write_impression(findings),
        labels=labels(findings),
        source="phantom",
    )
    return record, image


def _patient_id(seed: int, index: int) -> str:
    return f"phantom-{seed}-p{patient_of(index):06d}"


def phantom(seed: int, n: int, image_size: int, folder: Path, split_of: Callable[[str], str]) -> Iterator[Study]:
    """Studies 0 to n - 1. Their PNGs go to folder/images; one that is there already, byte for byte, is left alone."""
    for index in range(n):
        with threadpool_limits(1, user_api="blas"):  # many tiny products: threads only wait for each other
            study, image = make_study(seed, index, image_size, split_of(_patient_id(seed, index)))
        path = folder / study.images[0][0]
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        if not path.is_file() or path.read_bytes() != buffer.getvalue():
            with atomic_write(path, "wb", durable=False) as handle:
                handle.write(buffer.getvalue())
        yield study
