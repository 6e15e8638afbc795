"""The texts of DICOM studies: a table with one row per study, found by AccessionNumber or StudyInstanceUID."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.tables import Row, read_table
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies

KEYS = ("accessionnumber", "accession", "accessionno", "studyinstanceuid", "studyuid", "studyid")
TEXTS = ("indication", "comparison", "findings", "impression")


@dataclass
class Texts:
    """Rows by what the table calls a study: an accession number or a StudyInstanceUID."""

    rows: dict[str, Row] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def of(self, uid: str, accession: str) -> Row:
        """The row of one study, {} where it has none."""
        for key in (accession, uid):
            if key and key in self.rows:
                self.used.add(key)
                return self.rows[key]
        return {}

    @property
    def unused(self) -> int:
        """How many rows of the table no study asked for: usually a wrong key column."""
        return len(self.rows) - len(self.used)


def read_texts(settings: Studies, drops: Drops) -> Texts:
    """`studies.reports`, with the columns that `studies.columns` names; nothing where the recipe names no table.

    Raises RecipeError where the table, or the column that names its studies, is not there.
    """
    path, texts = settings.reports, Texts()
    if path is None:
        drops.note("no studies.reports in the recipe: no study has a text")
        return texts
    if not path.is_file():
        raise RecipeError(f"studies.reports {path} is no file; name a table with a row per study")
    key: tuple[str, ...] = ()
    for number, row in read_table(path, settings.encoding, settings.delimiter):
        if isinstance(row, str):
            drops.add("bad row", f"{path.name}:{number}: {row}; fix the row or remove it")
            continue
        key = key or _key_columns(row, settings, path)
        name = "_".join(row[k] for k in key if row.get(k))
        if not name:
            drops.add("bad row", f"{path.name}:{number}: no {' + '.join(key)}; fix the row or remove it")
        elif name in texts.rows:
            drops.add("bad row", f"{path.name}:{number}: a second row of this study; remove one")
        else:
            texts.rows[name] = _text_of(row, settings)
    return texts


def _key_columns(row: Row, settings: Studies, path: Path) -> tuple[str, ...]:
    if "study_id" in settings.columns.model_fields_set:
        asked = settings.columns.study_id
        names = (asked,) if isinstance(asked, str) else tuple(asked)
        found = () if [n for n in names if n not in row] else names
    else:
        plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in row}
        found = next(((plain[k],) for k in KEYS if k in plain), ())
    if not found:
        raise RecipeError(
            f"{path.name} has no column with the accession numbers or study UIDs (its columns: {', '.join(row)}); "
            "name it with studies.columns.study_id"
        )
    return found


def _text_of(row: Row, settings: Studies) -> Row:
    """The sections and the split of one row under our names."""
    texts = {}
    for name in (*TEXTS, "split"):
        asked = getattr(settings.columns, name)
        names = (asked,) if isinstance(asked, str) else tuple(asked)
        if lost := [n for n in names if n not in row and name in settings.columns.model_fields_set]:
            raise RecipeError(f"studies.columns.{name}: studies.reports has no column {lost[0]!r}")
        texts[name] = " ".join(" ".join(row[n] for n in names if row.get(n)).split())
    texts["findings"] = texts["findings"] or " ".join(row.get("report", "").split())
    return texts
