import csv
import json

import cv2
import numpy as np
import pytest

from depth_lightning.commands.compare import main
from depth_lightning.metrics import FACTS, Protocol
from depth_lightning.reporting.tables import write_parquet

PROTOCOL = Protocol()
ERRORS = np.exp(0.4 * np.random.default_rng(0).standard_normal(60) - 2.5)


def _run(
    folder, errors, protocol=PROTOCOL, ids=None, scenes=None, truth=100.0, accuracy=0.9, mine=None, directions=None
):
    """A folder as evaluate.py leaves it, or an older one without directions. `mine` is a metric of one's own."""
    folder.mkdir(parents=True)
    content = {
        "metrics": {"abs_rel": float(np.nanmean(errors)), "delta1": accuracy},
        "images": len(errors),
        "data": "X",
    }
    content["protocol"] = {**protocol.to_dict(), "hash": protocol.hash}
    if directions is not None:
        content["higher_is_better"] = {"abs_rel": False, "delta1": True, **directions}
    if mine is not None:
        content["metrics"]["mine"] = float(mine.mean())
    (folder / "metrics.json").write_text(json.dumps(content))
    ids = ids or [f"{image:03d}" for image in range(len(errors))]
    facts = dict.fromkeys(FACTS, np.full(len(errors), truth))
    shares = np.where(np.isnan(errors), np.nan, accuracy + 0 * errors)
    columns = {"id": ids, "scene": scenes or [""] * len(errors), "abs_rel": errors, "delta1": shares, **facts}
    columns |= {} if mine is None else {"mine": mine}
    write_parquet(folder / "per_image.parquet", columns)
    return str(folder)


def _noise(seed, sigma):
    return sigma * np.random.default_rng(seed).standard_normal(60)


def test_a_difference_smaller_than_the_intervals_is_found_in_pairs(tmp_path, capsys):
    first = _run(tmp_path / "first", ERRORS)
    second = _run(tmp_path / "second", ERRORS - 0.003 + _noise(1, 0.004))
    main([first, second, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "second against first" in printed and "The difference is second minus first." in printed
    change = 100 * (1 - np.mean(ERRORS - 0.003 + _noise(1, 0.004)) / np.mean(ERRORS))
    assert f"\nabs_rel: second is better by {change:.1f} %.\n" in printed
    assert "p values are not corrected; the metrics are correlated." in printed
    with (tmp_path / "out/pair.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["from"]) < float(row["difference"]) < float(row["to"]) < 0
    assert float(row["p"]) < 0.01
    assert int(row["second_better"]) == (_noise(1, 0.004) < 0.003).sum()
    assert int(row["first_better"]) + int(row["second_better"]) == 60


def test_runs_that_differ_by_chance_are_not_told_apart(tmp_path, capsys):
    main([_run(tmp_path / "a", ERRORS), _run(tmp_path / "b", ERRORS + _noise(3, 0.01))])
    assert "abs_rel: the two cannot be told apart at 5 %." in capsys.readouterr().out


def test_scenes_decide_where_frames_alone_would_mislead(tmp_path, capsys):
    scenes = [f"scene {image // 10}" for image in range(60)]
    shared = np.repeat([-0.02, -0.03, 0.015, -0.02, 0.01, -0.01], 10)
    for name, known in (("frames", None), ("scenes", scenes)):
        folders = (
            _run(tmp_path / name / "a", ERRORS, scenes=known),
            _run(tmp_path / name / "b", ERRORS + shared, scenes=known),
        )
        main(folders)
        assert ("cannot be told apart" in capsys.readouterr().out) == (name == "scenes")


@pytest.mark.parametrize(
    "other, match",
    [
        (
            {"protocol": Protocol(crop="nyu_eigen", max_depth=8)},
            r"differ in max_depth 10.0 / 8.0, crop none / nyu_eigen",
        ),
        ({"ids": [f"{image + 2:03d}" for image in range(60)]}, r"share 58 .* 2 only in a \(000, 001\); 2 only in b"),
        ({"truth": 90.0}, r"the truth of 60 images differs; 000 has valid_pixels 100 / 90"),
    ],
)
def test_runs_that_were_not_measured_alike_are_refused(other, match, tmp_path):
    with pytest.raises(SystemExit, match=match):
        main([_run(tmp_path / "a", ERRORS), _run(tmp_path / "b", ERRORS, **other)])


def test_images_that_one_run_did_not_score_are_left_out_and_counted(tmp_path, capsys):
    other = ERRORS.copy()
    other[:4] = np.nan
    main([_run(tmp_path / "a", ERRORS), _run(tmp_path / "b", other)])
    printed = capsys.readouterr().out
    assert "56 images that both scored" in printed and "Left out: 4 images that not every run scored." in printed


def test_a_ranking_says_which_runs_cannot_be_told_apart(tmp_path, capsys):
    folders = [
        _run(tmp_path / "worst", ERRORS + 0.05 + _noise(1, 0.01)),
        _run(tmp_path / "best", ERRORS + _noise(2, 0.01)),
        _run(tmp_path / "close", ERRORS + 0.0005 + _noise(5, 0.01)),
    ]
    main([*folders, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "The first cannot be told apart from 2 (" in printed and "corrected for 3 pairs (Holm)" in printed
    assert "not told apart from rank" in printed
    assert "The intervals are not corrected: one may exclude 0 where the runs cannot be told apart." in printed
    with (tmp_path / "out/ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[2]["run"] == "worst" and rows[2]["not_told_apart_from"] == "" and float(rows[2]["p_holm"]) < 0.01
    assert [row["not_told_apart_from"] for row in rows[:2]] == ["2", "1"]
    picture = cv2.imread(str(tmp_path / "out/ranking.png"))
    assert picture.shape[0] == 44 + 3 * 34 + 40
    assert picture.std() > 10


def test_a_ranking_by_another_metric(tmp_path, capsys):
    folders = [_run(tmp_path / str(run), ERRORS, accuracy=share) for run, share in enumerate((0.8, 0.9, 0.7))]
    main([*folders, "--metric", "delta1"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [line.split("│")[2].strip() for line in lines] == ["1", "0", "2"]
    with pytest.raises(SystemExit, match="abs_rel, delta1; found 'mine'"):
        main([*folders, "--metric", "mine"])


MORE, LESS = {"mine": True}, {"mine": False}


@pytest.mark.parametrize(
    "recorded, best_first",
    [((MORE, MORE, MORE), True), ((LESS, LESS, LESS), False), ((None, None, None), False), ((None, MORE, None), True)],
)
def test_a_metric_of_ones_own_is_ranked_as_the_evaluations_record(recorded, best_first, tmp_path, capsys):
    """Folders of before this was recorded take it for an error, unless another folder knows."""
    folders = [
        _run(tmp_path / str(run), ERRORS, mine=run + ERRORS, directions=directions)
        for run, directions in enumerate(recorded)
    ]
    main([*folders, "--metric", "mine", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    with (tmp_path / "out/ranking.csv").open() as file:
        order = [row["run"] for row in csv.DictReader(file)]
    assert order == (["2", "1", "0"] if best_first else ["0", "1", "2"])
    assert ("mine ↑" in printed) == best_first != ("mine ↓" in printed)
    assert f"{order[0]} is better than every other run." in printed


@pytest.mark.parametrize("directions, winner", [(MORE, "b"), (LESS, "a"), (None, "a")])
def test_a_metric_of_ones_own_is_won_as_the_evaluations_record(directions, winner, tmp_path, capsys):
    """By more in b, and in a's few first images."""
    mine = [10 + ERRORS, 11 + ERRORS - 2 * (np.arange(60) < 7)]
    for name, values in zip("ab", mine, strict=True):
        folder = _run(tmp_path / name, ERRORS, mine=values, directions=directions)
        content = json.loads((tmp_path / name / "metrics.json").read_text())
        content["metrics"] = {"mine": content["metrics"]["mine"]}
        (tmp_path / name / "metrics.json").write_text(json.dumps(content))
    main([str(tmp_path / "a"), folder, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert f"mine: {winner} is better by " in printed
    assert f"mine {'↑' if winner == 'b' else '↓'}" in printed
    with (tmp_path / "out/pair.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["first_better"], row["second_better"]) == (("7", "53") if winner == "b" else ("53", "7"))


def test_runs_that_do_not_agree_on_what_is_better_are_refused(tmp_path):
    with pytest.raises(
        SystemExit, match="b cannot be compared: in mine, higher is better for one and lower is better for the other"
    ):
        main([_run(tmp_path / name, ERRORS, mine=ERRORS, directions=way) for name, way in (("a", MORE), ("b", LESS))])


def test_a_sweep_that_ran_before(tmp_path, capsys):
    for job, (change, lr) in enumerate(((0.04, "1e-3"), (0, "1e-4"))):
        _run(tmp_path / str(job), ERRORS + change)
        (tmp_path / str(job) / ".hydra").mkdir()
        (tmp_path / str(job) / ".hydra/overrides.yaml").write_text(f"- optimizer.lr={lr}\n- trainer=cpu\n")
    main([str(tmp_path), "--output", str(tmp_path / "new/out")])
    assert (tmp_path / "new/out/ranking.csv").is_file() and not (tmp_path / "ranking.csv").exists()
    main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert "1 lr=0.0001 is better than every other run." in printed and "All jobs" in printed
    assert (tmp_path / "ranking.png").is_file() and (tmp_path / "comparison.csv").is_file()


def test_folders_that_hold_no_evaluation_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"has no metrics\.json.*evaluate\.py or train\.py"):
        main([str(tmp_path), _run(tmp_path / "a", ERRORS)])
    with pytest.raises(SystemExit, match="holds 0 evaluations"):
        (tmp_path / "empty").mkdir()
        main([str(tmp_path / "empty")])
