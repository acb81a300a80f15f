"""Words from which Hydra composes no configuration: the key, and what to type instead."""

import os
import sys

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from depth_lightning.runs.composing import in_words
from depth_lightning.runs.program import program

TRAINERS = "bf16, cpu, ddp, ddp_bf16, ddp_cpu, ddp_fp16, default, fp16, fsdp, fsdp_cpu"
ADAMW = "depth_lightning.training.optimizer.adamw"
CASES = [
    ("data.batchsize=4", "data.batchsize is not an option. Did you mean data.batch_size?"),
    (
        "optimizer.lrate=1",
        "optimizer.lrate is not an option. "
        "Options of optimizer: betas, head_lr_scale, layer_decay, lr, no_decay, weight_decay. "
        f"An argument of {ADAMW} that conf/ does not list takes a plus: +optimizer.lrate=1",
    ),
    ("data.root.x=1", "data.root.x does not exist: data.root has no options."),
    ("data.manifest=a.csv", "data.manifest is an option of data=pairs. Choose data=… as well."),
    ("encoder.name=vit", "encoder.name is an option of encoder=timm. Choose encoder=… as well."),
    ("encoder.nam=vit", "encoder.nam is an option only where encoder is chosen as well: encoder=…, one of dinov2reg"),
    ("trainr=cpu", "trainr is not an option. Did you mean trainer?"),
    ("trainer=nope", f"trainer is one of {TRAINERS}, found 'nope'."),
    ("model=vit-s", "model is one of default, tiny, vitb, vitg, vitl, vits, found 'vit-s'. Did you mean vits?"),
    ("trainer=null", "trainer=null: a group has no empty option. Leave it out, or delete it with ~trainer"),
    ("download=nyu_h5", "download is not a group of train. Options: adapter, augmentation, callbacks, camera, data"),
    ("+seed=3", "seed is an option already. Type it without the plus: seed=3"),
    ("+trainer=cpu", "trainer is chosen already. Type it without the plus, and once: trainer=…"),
    (
        "seed=1,2",
        'seed=1,2 has several values. A list takes brackets, seed=[1,2]; a text with commas takes quotes twice, '
        "\"seed='1,2'\"; several jobs, one for each value, take --multirun.",
    ),
    ("hydra.job.num=x", "hydra.job.num cannot be read: Value 'x' of type 'str' could not be converted to Integer."),
    ("optimizer=${seed}", "optimizer=${seed}: Error resolving interpolation '${seed}'"),
    ("~nope", "Could not delete from config. 'nope' does not exist."),
    ("protocol=[1]", "protocol=[1]: argument of type 'int' is not iterable"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "message"), CASES, ids=[word for word, _ in CASES])
def test_what_is_said(word, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", word])
    with pytest.raises(SystemExit) as end:
        program("train")
    assert str(end.value.code).startswith(message)
    printed = capsys.readouterr()
    assert printed.out + printed.err == "" and "HYDRA_FULL_ERROR" not in os.environ and not list(tmp_path.iterdir())


def test_a_checkpoints_data_set_has_options_of_its_own(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "checkpoint=a.ckpt", "data.manifest=a.csv"])
    with pytest.raises(SystemExit) as end:
        program("evaluate")
    assert end.value.code == (
        "data.manifest is an option of data=pairs. Choose data=… as well, or if the checkpoint has that: "
        "+data.manifest=…"
    )


def test_hydras_own_report_is_left_if_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", "trainr=cpu"])
    with pytest.raises(Exception, match="Could not override 'trainr'"):
        program("train")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_a_value_that_cannot_be_read_is_named():
    cfg = OmegaConf.create({"a": {"b": "${nothing}", "c": "${oc.env:NOT_SET_ANYWHERE}"}})
    for key, problem in (
        ("b", "a.b cannot be read: Interpolation key 'nothing' not found."),
        ("c", "a.c cannot be read: \"Environment variable 'NOT_SET_ANYWHERE' not found\"."),
    ):
        with pytest.raises(OmegaConfBaseException) as error:
            cfg.a[key]
        assert in_words(error.value) == problem
