"""A user's table: encodings, dialects, splits, views and paths, on trees made here."""

import gzip
import json

import pytest

from chexalign.data import Drops
from chexalign.data.clean import without_earlier
from chexalign.data.masks import without_masks
from chexalign.data.mimic.index import Index
from chexalign.data.mimic.sections import last, split_sections
from chexalign.data.read import read_studies
from chexalign.data.views import chosen, view_class
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies

HEADER = "study_id;findings;images\n"
GERMAN = "1;Herz größer – Pleuraerguß, übrig;a.png\n"


def read(path, **settings):
    drops = Drops()
    found = list(
        read_studies(Studies(source=settings.pop("source", "csv"), root=path, **settings), 0, path.parent, drops)
    )
    return found, drops


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
@pytest.mark.parametrize("source", ["csv", "jsonl"])
def test_an_encoding_is_recognised(tmp_path, encoding, source):
    row = {"study_id": "1", "findings": "Herz größer – Pleuraerguß, übrig"}
    text = HEADER + GERMAN if source == "csv" else json.dumps(row, ensure_ascii=False) + "\n"
    path = tmp_path / f"t.{source}"
    path.write_bytes(text.encode(encoding))
    ((study,), drops) = read(path, source=source)
    assert study.findings == row["findings"] and not drops.lines


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "mac-roman"),
        ("1;Größe verändert;a\n", "cp850"),
        ("1;Сердце не увеличено;a\n", "cp1251"),
        ("1;Serce powiększone, płuca czyste;a\n", "cp1250"),
        ("1;Srdce není zvětšené, plíce čisté, příčný řez;a\n", "cp1250"),
    ],
)
def test_an_encoding_that_is_not_certain_is_refused_and_read_by_its_name(tmp_path, text, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes((HEADER + text).encode(encoding))
    with pytest.raises(RecipeError, match="does not read as cp1252"):
        read(path)
    ((study,), _) = read(path, encoding=encoding)
    assert study.findings == text.split(";")[1]


@pytest.mark.parametrize(
    ("true", "said"), [("cp1252", "utf-8"), ("utf-8", "cp1252"), ("utf-16", "utf-8"), ("utf-8", "nope")]
)
def test_a_wrong_encoding_is_refused(tmp_path, true, said):
    path = tmp_path / "t.csv"
    path.write_bytes((HEADER + GERMAN).encode(true))
    with pytest.raises(RecipeError):
        read(path, encoding=said)


def test_one_damaged_row_of_a_utf8_table_is_dropped_alone(tmp_path):
    path = tmp_path / "t.csv.gz"
    rows = [HEADER.encode(), "1;größer;a\n".encode(), "2;größer;b\n".encode(), b"3;gr\xf6\xdfer;c\n"]
    path.write_bytes(gzip.compress(b"".join(rows)))
    found, drops = read(path)
    assert [s.study_id for s in found] == ["1", "2"] and "t.csv.gz:4: bytes that are not UTF-8" in drops.lines[0]


def test_rows_of_one_study_are_joined_and_a_long_row_is_dropped(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        'study_id,findings,images,views\n007,Clear.,a.png,PA\n007,Clear.,b.png,lat.\n8,x,c.png,PA,9,9\n9,"a\nb",d.png,\n'
    )
    found, drops = read(path)
    assert [(s.study_id, s.images) for s in found] == [
        ("007", (("a.png", "frontal"), ("b.png", "lateral"))),
        ("9", (("d.png", "unknown"),)),
    ]
    assert found[1].findings == "a b" and "t.csv:4: 6 cells" in drops.lines[0]


def test_a_split_of_some_rows_is_never_mixed_with_ours(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("study_id,findings,split\n1,a,validate\n2,b,Training\n3,c,\n4,d,test\n5,e,fold1\n")
    found, drops = read(path)
    assert [(s.study_id, s.split) for s in found] == [("1", "val"), ("2", "train"), ("4", "test")]
    assert drops.reasons == {"no split": 1, "bad row": 1}
    found, drops = read(path, split_names={"fold1": "val"})
    assert found[-1].split == "val"
    assert len(read(path, split_by="patient")[0]) == 5


def test_nan_and_unknown_fields_drop_nothing(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"study_id": 1, "findings": "a", "impression": NaN, "age": 7, "split": NaN, "labels": {"x": NaN}}\n'
    )
    ((study,), drops) = read(path, source="jsonl")
    assert study.impression == "" and study.labels == {"x": None} and drops.notes == {"field age is not used": 1}


def test_paths_stay_under_the_named_root(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    path = tmp_path / "table" / "t.csv"
    path.parent.mkdir()
    path.write_text(f"study_id,findings,images\n1,a,{images}/x/1.png\n2,b,x\\2.png\n3,c,../3.png\n4,d,/etc/passwd\n")
    found, drops = read(path, image_root=images)
    assert [s.images[0][0] for s in found] == ["x/1.png", "x/2.png"]
    assert drops.reasons == {"bad row": 2} and not any("passwd" in line for line in drops.lines)


def test_several_sources_keep_their_ids_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("study_id,findings,images\n1,x,i.png\n")
    (tmp_path / "b" / "studies.jsonl").write_text('{"study_id": "1", "findings": "x", "images": ["i.png"]}\n')
    sources = [{"source": "csv", "root": tmp_path / "a/t.csv"}, {"source": "jsonl", "root": tmp_path / "b"}]
    found = list(read_studies(Studies(sources=sources), 0, tmp_path, Drops()))
    assert [(s.study_id, s.patient_id, s.images[0][0]) for s in found] == [
        ("csv:1", "csv:1", "a/i.png"),
        ("jsonl:1", "jsonl:1", "b/i.png"),
    ]


def test_a_setting_that_the_source_does_not_read_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("study_id,findings\n1,x\n")
    with pytest.raises(RecipeError, match=r"studies\.sections is not read by source csv, but by mimic_cxr"):
        read(tmp_path / "t.csv", sections="repaired")
    with pytest.raises(RecipeError, match="did you mean 'findings'"):
        read(tmp_path / "t.csv", columns={"findings": "finding"})


def test_views():
    names = ["PA", "a.p.", "LL", "LATERAL", "POSTERO_ANTERIOR", "AP LLD", "SWIMMERS", "", "Frontal"]
    classes = ["frontal", "frontal", "lateral", "lateral", "frontal", "other", "other", "unknown", "frontal"]
    assert [view_class(n) for n in names] == classes
    images = [("1", "LL"), ("2", "PA"), ("3", "AP"), ("4", "")]
    assert chosen(images, ("frontal", "lateral")) == (("2", "frontal"), ("3", "frontal"), ("1", "lateral"))
    assert chosen(images, ("AP",)) == (("3", "AP"),)


def test_the_study_before_is_by_time_and_never_by_id():
    index = Index()
    for study, time in ((9, (1.0, 5.0)), (3, (1.0, 7.0)), (5, (1.0, 7.0)), (1, (2.0, 0.0))):
        index.subject[study], index.time[study] = 1, time
    assert index.priors() == {3: 9, 5: 9, 1: 5}


def test_mits_parser_swallows_a_header_after_an_empty_one():
    text = "REPORT\n FINDINGS:\n IMPRESSION:  Clear.\n \n RIBS:  Fine.\n"
    assert split_sections(text)[1] == ("findings", " IMPRESSION:  Clear.\n ")
    assert last(split_sections(text), "findings").strip() == "Fine."


def test_masks_and_what_speaks_of_an_earlier_image():
    assert without_masks("___ year old woman with ___.") == "woman with."
    assert without_masks("___-year-old man, seen ___.") == "man, seen."
    assert without_earlier("Clear. Compared to prior, stable. Effusion again seen. Edema is new.") == (
        "Clear. Effusion seen. Edema is present."
    )
