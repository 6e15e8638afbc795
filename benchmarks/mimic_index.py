"""Time and memory of reading a made-up MIMIC-CXR of full size: 227,835 studies, 377,110 images, reports in a zip.

python benchmarks/mimic_index.py [studies]   → seconds and peak memory of `chexalign studies`' reading, without decoding
"""

from __future__ import annotations

import gzip
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

from chexalign.data import Drops
from chexalign.data.read import read_studies
from chexalign.recipe.studies import Studies

STUDIES, IMAGES, PATIENTS = 227_835, 377_110, 65_379
LINES = (
    "                                FINAL REPORT",
    "EXAMINATION:  CHEST (PA AND LAT)",
    "",
    "INDICATION:  ___ year old woman with cough  // pneumonia {n}?",
    "",
    "COMPARISON:  ___",
    "",
    "FINDINGS: ",
    "",
    "The heart is mildly enlarged.  There is a small left pleural effusion.  No",
    "pneumothorax is seen.  The mediastinal contours are unchanged since ___.",
    "Patchy opacity at the left base may be atelectasis, number {n}.",
    "",
    "IMPRESSION: ",
    "",
    "Small left pleural effusion.  No pneumonia.",
)
REPORT = "".join(f" {line}\n" for line in LINES)  # every line begins with one space


def write(folder: Path, n: int) -> None:
    """The two tables and the zip of reports of `n` studies."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime"
    )
    with (
        gzip.open(folder / "mimic-cxr-2.0.0-metadata.csv.gz", "wt", compresslevel=1) as images,
        gzip.open(folder / "mimic-cxr-2.0.0-split.csv.gz", "wt", compresslevel=1) as splits,
        zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as reports,
    ):
        images.write(f"{metadata}\n")
        splits.write("dicom_id,study_id,subject_id,split\n")
        for i in range(n):
            subject, study = 10_000_000 + i * PATIENTS // STUDIES * 100, 50_000_000 + i * 40
            split = "test" if subject % 8700 == 0 else "validate" if subject % 13_000 == 0 else "train"
            when = f"21{rng.randrange(10, 99)}0{rng.randrange(1, 9)}1{rng.randrange(9)},{rng.randrange(235_959)}.5"
            for view in ("PA", "LATERAL") if i % 100 < 100 * (IMAGES / STUDIES - 1) else ("AP",):
                dicom = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
                images.write(f"{dicom},{subject},{study},CHEST (PA AND LAT),{view},3056,2544,{when}\n")
                splits.write(f"{dicom},{study},{subject},{split}\n")
            name = f"files/p{subject // 1_000_000}/p{subject}/s{study}.txt"
            reports.writestr(name, REPORT.format(n=i))


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        start, cpu = time.monotonic(), time.process_time()
        settings = Studies(source="mimic_cxr", root=Path(folder), reports=Path(folder))
        studies = list(read_studies(settings, 0, Path(folder), Drops()))
        seconds, used = time.monotonic() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    splits = dict(Counter(s.split for s in studies))
    print(f"{len(studies):,} studies, {sum(len(s.images) for s in studies):,} images, {splits}")
    print(f"{seconds:.1f} s ({used:.1f} s of processor time), peak {peak:.2f} GB ({before:.2f} GB before reading)")


if __name__ == "__main__":
    main()
