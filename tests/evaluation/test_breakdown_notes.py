"""What is printed below the table of an evaluation's breakdowns."""

from depth_lightning.evaluation.breakdowns import report_breakdowns
from depth_lightning.metrics import Breakdowns


def printed(abs_rels, bias, folder, capsys):
    part = {"part": "near an edge", "share": 1.0, "abs_rel": abs_rels[0], "bias": bias, "delta1": 1.0}
    part |= {"mean_target": 2.0, "mean_prediction": 2.0}
    rows = [{"abs_rel": abs_rel, "scales": [1.0, 1.0]} for abs_rel in abs_rels]
    report_breakdowns(Breakdowns([], [part], [], [], [], rows), folder)
    return capsys.readouterr().out


def test_a_correction_that_does_not_help_has_nothing_to_gain(tmp_path, capsys):
    shown = printed([0.0001, 0.000101, 0.00006], -0.0004, tmp_path, capsys)
    assert "gives abs_rel 0.0001 (nothing to gain), a factor and an offset 0.0001 (-40.0 %)." in shown
    assert "+0.0 %" in shown and "-0.0" not in shown


def test_a_bias_keeps_its_sign(tmp_path, capsys):
    assert "-0.1 %" in printed([0.1, 0.1, 0.1], -0.0006, tmp_path, capsys)
