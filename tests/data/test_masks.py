"""OpenI's XXXX."""

import pytest

from chexalign.data.masks import unmasked, without_masks
from chexalign.records import Study


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Normal chest x-XXXX.", "Normal chest x-ray."),
        ("XXXX-year-old male, XXXX.", "male."),
        ("Mild XXXX XXXX opacity.", "Mild opacity."),
        ("Consider pneumoniaXXXX.", "Consider pneumonia."),
        ("Findings discussed with XXXX at XXXX/XXXX, XXXX.. Stable.", "Findings discussed with at /. Stable."),
        ("No mask here..  Kept  as it is.", "No mask here..  Kept  as it is."),
        ("XXXX", ""),
    ],
)
def test_masks_are_removed_and_nothing_is_guessed(text, left):
    assert without_masks(text) == left
    assert without_masks(left) == left


def test_every_section_of_a_study():
    study = Study("a", "a", "test", indication="XXXX pain", comparison="XXXX", findings="XXXX clear", impression="OK")
    clean = unmasked(study)
    assert (clean.indication, clean.comparison, clean.findings, clean.impression) == ("pain", "", "clear", "OK")


def test_no_mask_is_left_in_the_real_reports():
    from chexalign.data.openi import find_archive, read_openi
    from chexalign.errors import WorkError

    try:
        find_archive()
    except WorkError as error:
        pytest.skip(str(error))
    studies = [unmasked(s) for s in read_openi(None, lambda patient: "test")]
    assert len(studies) == 3955
    assert not [s.study_id for s in studies if "XXX" in s.findings + s.impression + s.indication]
