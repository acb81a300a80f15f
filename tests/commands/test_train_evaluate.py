import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.train import train
from depth_lightning.runs.checkpoint import describe

ROOT = Path(__file__).resolve().parents[2]


def _rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def _values(folder, key):
    return [float(row[key]) for row in _rows(folder) if row[key]]


def _program(name, *overrides, check=True):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, name, *map(str, overrides)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def test_a_run_leaves_what_the_readme_says(trained):
    folder, best = trained
    for name in ("config.yaml", "metrics.csv", "metrics.json", "table.csv", "checkpoints/best.ckpt"):
        assert (folder / name).is_file(), name
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert sorted(path.name for path in (folder / "panels").iterdir()) == ["epoch_001.png", "epoch_002.png"]
    content = json.loads((folder / "metrics.json").read_text())
    assert content["metrics"]["abs_rel"] == best == pytest.approx(min(_values(folder, "val/abs_rel")), rel=1e-5)
    assert content["images"] == 5
    assert content["baseline"]["metrics"]["abs_rel"] > 0
    assert len(_values(folder, "lr/encoder")) == len(_values(folder, "lr/head"))
    assert _values(folder, "lr/head")[0] == pytest.approx(2 * _values(folder, "lr/encoder")[0])


def test_evaluate_reproduces_the_run_from_its_checkpoint_alone(trained, compose_config, tmp_path):
    folder, best = trained
    cfg = compose_config("evaluate", [f"checkpoint={folder}/checkpoints/best.ckpt"], tmp_path)
    score = evaluate(cfg, [])
    assert score.metrics["abs_rel"] == pytest.approx(best, rel=1e-6)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["protocol"]["hash"] == json.loads((folder / "metrics.json").read_text())["protocol"]["hash"]
    assert (tmp_path / "panels.png").is_file()


def test_what_is_typed_wins_over_the_checkpoint(trained, compose_config, tmp_path):
    folder, _ = trained
    typed = ["protocol.max_depth=3.0", "data.eval_batch_size=1", "panels=0"]
    cfg = compose_config("evaluate", [f"checkpoint={folder}/checkpoints/last.ckpt", *typed], tmp_path)
    evaluate(cfg, typed)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["protocol"]["max_depth"] == 3.0
    assert content["size"] == 42


@pytest.mark.parametrize(("split", "images", "first"), [("all", 17, "train/"), ("train", 12, ""), ("val", 5, "")])
def test_a_split_to_score(split, images, first, trained, compose_config, tmp_path):
    """The rooms know two splits, which together are all."""
    typed = [f"split={split}", "panels=0", "breakdowns=false", f"checkpoint={trained[0]}/checkpoints/best.ckpt"]
    result = evaluate(compose_config("evaluate", typed, tmp_path), typed)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert (content["images"], content["split"]) == (images, split)
    assert result.per_image()["id"][0].startswith(first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split=test"], r"^split is train or val, found 'test'\.$"),
        (["split=validation"], r"^split is one of train, val, test, all, found 'validation'\.$"),
        (
            ["data=da2k", "split=all"],
            r"^split is for depth maps; DA-2K is one set of point pairs\. Leave out split=all\.$",
        ),
    ],
)
def test_a_split_that_is_not_there(overrides, message, trained, compose_config, tmp_path):
    typed = [*overrides, f"checkpoint={trained[0]}/checkpoints/best.ckpt"]
    with pytest.raises(ValueError, match=message):
        evaluate(compose_config("evaluate", typed, tmp_path), typed)


def test_checkpoints_hold_plain_values_and_describe_themselves(trained):
    folder, _ = trained
    content = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert content["config"]["model"]["encoder"] == "tiny"
    assert all(type(value) in (dict, list, str, int, float, bool, type(None)) for value in _leaves(content["config"]))


def test_a_root_that_is_typed_reaches_the_data_set(trained, compose_config, tmp_path):
    """The checkpoint knows the old place; the data lie elsewhere now."""
    folder, _ = trained
    moved = tmp_path / "moved"
    typed = [f"data.root={moved}", "panels=0"]
    evaluate(
        compose_config("evaluate", [f"checkpoint={folder}/checkpoints/best.ckpt", *typed], tmp_path / "run"), typed
    )
    assert list(moved.glob("rooms_val_*"))


def test_environment_variables_are_resolved_in_a_checkpoint(compose_config, monkeypatch):
    monkeypatch.setenv("NYU_ROOT", "/somewhere/nyu")
    assert describe(compose_config("train", []))["data"]["root"] == "/somewhere/nyu"
    rooms = describe(compose_config("train", ["data=rooms"]))
    assert rooms["data"]["dataset"]["count"]["train"] == "${...train_images}"


def _leaves(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    else:
        yield value


def test_resume_goes_on_where_the_run_ended(trained, small, compose_config, tmp_path):
    folder, _ = trained
    overrides = [*small, f"checkpoint={folder}/checkpoints/last.ckpt", "trainer.max_epochs=3"]
    train(compose_config("train", overrides, tmp_path))
    assert [int(row["epoch"]) for row in _rows(tmp_path) if row["val/abs_rel"]] == [2]


def test_the_same_seed_gives_the_same_run(trained, small, compose_config, tmp_path):
    folder, best = trained
    assert train(compose_config("train", [*small, "data.num_workers=1"], tmp_path)) == best
    assert _values(tmp_path, "train/loss") == _values(folder, "train/loss")


def test_a_folder_that_holds_a_run_is_not_overwritten(trained, small, compose_config):
    folder, _ = trained
    with pytest.raises(ValueError, match="already holds a run"):
        train(compose_config("train", small, folder))


def test_released_weights_are_scored(small, compose_config, tmp_path):
    from depth_lightning.models import DepthAnythingV2, save_weights

    torch.manual_seed(1)
    save_weights(DepthAnythingV2("tiny"), tmp_path / "tiny.pth")
    typed = [f"model.weights={tmp_path}/tiny.pth"]
    data = [override for override in small if override.startswith("data.")]
    cfg = compose_config("evaluate", ["model=tiny", "data=rooms", *data, *typed], tmp_path / "run")
    assert evaluate(cfg, typed).counts.depth.scored == 5


@pytest.mark.parametrize("name, data", [("train", "nyu"), ("evaluate", "nyu"), ("evaluate", "da2k")])
def test_data_that_is_not_there_is_named_before_weights_are_fetched(name, data, compose_config, tmp_path):
    typed = [f"data={data}", f"data.root={tmp_path}/nowhere", f"model.weights={tmp_path}/neither.pth", "trainer=cpu"]
    cfg = compose_config(name, typed, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(cfg) if name == "train" else evaluate(cfg, typed)


@pytest.mark.parametrize(
    "overrides, match",
    [
        ([], "Nothing to evaluate"),
        (["checkpoint=nowhere.ckpt"], "no such file"),
        (
            ["checkpoint=README.md"],
            r"checkpoint=README\.md is no checkpoint: it starts with .*model\.weights=",
        ),
        (["checkpoint=tests"], "It is a folder"),
    ],
)
def test_wrong_checkpoints_are_named(overrides, match, compose_config, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        evaluate(compose_config("evaluate", overrides, tmp_path), overrides)


def test_another_encoder_than_the_checkpoints_is_refused(trained, compose_config, tmp_path):
    folder, _ = trained
    cfg = compose_config("evaluate", [f"checkpoint={folder}/checkpoints/best.ckpt", "encoder=vits"], tmp_path)
    with pytest.raises(ValueError, match="holds a tiny, but vits was requested"):
        evaluate(cfg, ["encoder=vits"])


def test_errors_end_with_one_message_and_no_traceback(tmp_path):
    result = _program("train.py", "data.root=/nowhere", "model.weights=null", f"hydra.run.dir={tmp_path}", check=False)
    assert result.returncode == 1
    assert "NYU_ROOT" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert "Traceback" in (tmp_path / "train.log").read_text()


def test_two_processes_score_every_image_once(small, compose_config, tmp_path):
    """Five images on two processes: none padded, none dropped."""
    run = tmp_path / "run"
    _program("train.py", *small, "trainer=ddp_cpu", "data.batch_size=2", "trainer.max_epochs=1", f"hydra.run.dir={run}")
    content = json.loads((run / "metrics.json").read_text())
    assert content["images"] == 5
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", "trainer=cpu"]
    alone = evaluate(compose_config("evaluate", typed, tmp_path / "alone"), typed)
    assert alone.metrics == pytest.approx(content["metrics"], rel=1e-5)


@pytest.mark.slow
def test_a_sweep_under_ddp_runs_every_job_once(small, tmp_path):
    _program(
        *("train.py", "-m", *small, "trainer=ddp_cpu", "data.batch_size=2", "trainer.max_epochs=1"),
        *("optimizer.lr=1e-4,2e-4", "scheduler=poly,cosine", f"hydra.sweep.dir={tmp_path}"),
    )
    jobs = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert [job.name for job in jobs] == ["0", "1", "2", "3"]
    assert {len(_values(job, "val/abs_rel")) for job in jobs} == {1}
    rates = [max(_values(job, "lr/encoder")) for job in jobs]
    assert rates == pytest.approx([1e-4, 1e-4, 2e-4, 2e-4], rel=1e-5)
