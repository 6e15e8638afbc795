"""The plain lines of a log: how much is done, and of how much where that is known."""

from chexalign.progress import progress


def test_a_known_total_is_named_and_an_unknown_one_is_not_made_up(capfd):
    with progress("reading studies", None, "studies") as ticker:
        ticker.advance(790)
    with progress("training", 4, "steps") as ticker:
        ticker.advance(3, note="loss 0.5")
    unknown, known = capfd.readouterr().err.splitlines()
    assert unknown.startswith("reading studies: 790 studies, ") and "done" not in unknown and "left" not in unknown
    assert known.startswith("training: 3/4 steps, ") and known.endswith(" s left loss 0.5")
