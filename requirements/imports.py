"""Import every module of chexalign; one that needs torch where there is none is counted, any other failure is an error."""

import importlib
import pkgutil
import sys

import chexalign

PROGRAMS = ("chexalign.__main__", "chexalign.judges.neural.radeval_worker")  # run, never imported
done, without = 0, []
for found in pkgutil.walk_packages(chexalign.__path__, "chexalign.", onerror=lambda name: without.append(name)):
    if found.name in PROGRAMS:
        continue
    try:
        importlib.import_module(found.name)
        done += 1
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "torch":
            raise
        without.append(found.name)
print(f"Python {sys.version.split()[0]}: {done} modules import, {len(set(without))} need torch")
