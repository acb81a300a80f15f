import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf

from depth_lightning.metrics import ERRORS, DepthMetrics, Protocol, crop_mask, usual_crops
from depth_lightning.settings import SettingError

CONF = Path(__file__).resolve().parents[2] / "conf" / "protocol"


def _maps(images=4, height=20, width=30):
    generator = torch.Generator().manual_seed(0)
    target = 0.5 + 9 * torch.rand(images, height, width, generator=generator)
    prediction = target * (0.7 + 0.6 * torch.rand(images, height, width, generator=generator))
    mask = torch.rand(images, height, width, generator=generator) < torch.linspace(0.05, 1, images)[:, None, None]
    return prediction, target, mask


# KITTI's benchmark crop.


@pytest.mark.parametrize("height, width", [(375, 1242), (370, 1226), (376, 1241), (352, 1216)])
def test_benchmark_crop_is_the_bottom_and_centred(height, width):
    rows, columns = np.nonzero(crop_mask("kitti_benchmark", height, width).numpy())
    assert (rows.min(), rows.max()) == (height - 352, height - 1)
    assert (columns.min(), columns.max()) == (int((width - 1216) / 2), int((width - 1216) / 2) + 1215)
    assert len(rows) == 352 * 1216


def test_gargs_crop_of_the_benchmark_crop():
    inside = crop_mask("kitti_benchmark_garg", 375, 1242)
    assert torch.equal(inside[23:, 13:1229], crop_mask("kitti_garg", 352, 1216))
    assert inside.sum() == crop_mask("kitti_garg", 352, 1216).sum()
    assert not torch.equal(inside, crop_mask("kitti_garg", 375, 1242))


@pytest.mark.parametrize("crop", ["kitti_benchmark", "kitti_benchmark_garg"])
@pytest.mark.parametrize("size", [(351, 1242), (375, 1215)])
def test_benchmark_crop_of_smaller_images_is_refused(crop, size):
    with pytest.raises(ValueError, match=f"352×1216 of a larger ground truth, found {size[0]}×{size[1]}"):
        crop_mask(crop, *size)


@pytest.mark.parametrize(
    "size, crops",
    [((480, 640), 2), ((375, 1242), 5), ((352, 1216), 5), ((640, 480), 1), ((1080, 1920), 1), ((84, 112), 1)],
)
def test_usual_crops_exist_for_their_size(size, crops):
    found = usual_crops(*size)
    assert found[0] == "none" and len(found) == crops
    assert all(crop_mask(crop, *size).any() for crop in found)


# The object.


def test_the_hash_is_of_what_is_not_at_its_default():
    """Written down, so that a change that would make old numbers look new is noticed."""
    assert Protocol().hash == hashlib.sha256(b"{}").hexdigest()[:8]
    assert Protocol(clip=True).hash == hashlib.sha256(b'{"clip": true}').hexdigest()[:8]

    @dataclasses.dataclass(frozen=True)
    class Later(Protocol):
        added: float = 1.0

    eigen = {"crop": "nyu_eigen", "clip": True}
    assert Later(**eigen).hash == Protocol(**eigen).hash != Later(**eigen, added=2.0).hash


def test_every_field_moves_the_hash():
    changes = {
        "min_depth": 0.1, "max_depth": 80, "crop": "kitti_garg", "alignment": "scale_shift_depth", "strict": False,
        "clip": True, "upsample": "bicubic", "flip_average": True, "reduction": "pixel",
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(Protocol)}
    assert len({Protocol().hash, *(Protocol(**{key: value}).hash for key, value in changes.items())}) == 10


def test_one_protocol_has_one_hash_however_it_is_written():
    typed = OmegaConf.create("{_target_: depth_lightning.metrics.Protocol, min_depth: 1e-3, max_depth: 80}")
    assert instantiate(typed).hash == Protocol(max_depth=80.0).hash
    assert Protocol(max_depth=80.0) == Protocol(max_depth=80)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"crop": None}, r"^crop is one of none, nyu_eigen, .*, found None\.$"),
        ({"upsample": "nearest"}, r"^upsample is one of bilinear_corners, bilinear, bicubic, found 'nearest'\.$"),
        ({"reduction": "median"}, r"^reduction is image or pixel, found 'median'\.$"),
        ({"flip_average": "maybe"}, r"^flip_average is true or false, found 'maybe'\.$"),
        ({"max_depth": "far"}, r"^max_depth is a number above 0 and at most 1,000,000, found 'far'\.$"),
        ({"max_depth": "80"}, r"^max_depth is a number above 0 and at most 1,000,000, found '80'\.$"),
        ({"max_depth": None}, r"^max_depth is a number .*, found None\.$"),
        ({"max_depth": True}, r"^max_depth is a number .*, found True\.$"),
        ({"max_depth": float("nan")}, r"^max_depth is a number .*, found nan\.$"),
        ({"max_depth": float("inf")}, r"^max_depth is a number .*, found inf\.$"),
        ({"min_depth": 20}, r"^min_depth is below max_depth, 10; found 20\.$"),
    ],
)
def test_wrong_values_of_a_protocol_are_named(arguments, match):
    with pytest.raises(SettingError, match=match):
        Protocol(**arguments)


def test_in_words():
    text = str(Protocol(max_depth=80, crop="kitti_garg", clip=True, flip_average=True))
    assert text == "0.001 < depth < 80, crop kitti_garg, alignment none, clipped, averaged with the mirrored image's"
    assert "≤ 10" in str(Protocol(strict=False)) and "over all pixels" in str(Protocol(reduction="pixel"))


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_ready_protocols_state_only_fields(file):
    fields = {field.name for field in dataclasses.fields(Protocol)} | {"_target_", "defaults"}
    assert set(OmegaConf.load(file)) <= fields


def test_metric_yaml_states_every_field():
    """What a yaml does not hold cannot be typed as protocol.<field>=…"""
    assert set(OmegaConf.load(CONF / "metric.yaml")) - {"_target_"} == {f.name for f in dataclasses.fields(Protocol)}


# What the fields do.


@pytest.mark.parametrize("upsample", ["bilinear_corners", "bilinear", "bicubic"])
def test_upsampled(upsample):
    row = torch.tensor([[[0.0, 1.0]]])
    found = Protocol(upsample=upsample).upsampled(row, 1, 4)[0, 0]
    if upsample == "bilinear_corners":
        assert found.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    elif upsample == "bilinear":
        assert found.tolist() == pytest.approx([0, 0.25, 0.75, 1])
    else:
        assert torch.equal(found, F.interpolate(row[:, None], (1, 4), mode="bicubic")[0, 0, 0])


def test_pixel_reduction_equals_numpy_on_all_pixels_together():
    prediction, target, mask = _maps()
    metrics = DepthMetrics(Protocol(reduction="pixel"))
    for image in range(4):
        metrics.update(prediction[image, None], target[image, None], mask[image, None])
    one = tuple(maps.reshape(1, 80, 30) for maps in (prediction, target, mask))
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert set(ERRORS) - set(found) == {"silog", "silog_100"}
    assert found == pytest.approx({name: ERRORS[name](*one).item() for name in found}, rel=1e-5)
    p, t = prediction[mask].numpy(), target[mask].numpy()
    assert found["rmse"] == pytest.approx(np.sqrt(((p - t) ** 2).mean()), rel=1e-5)
    assert found["abs_rel"] == pytest.approx((np.abs(p - t) / t).mean(), rel=1e-5)
    by_image = DepthMetrics(Protocol())
    by_image.update(prediction, target, mask)
    assert found["rmse"] != pytest.approx(by_image.compute()["rmse"].item(), rel=1e-4)


def test_pixel_reduction_leaves_out_what_is_not_scored():
    prediction, target, mask = _maps()
    metrics = DepthMetrics(Protocol(reduction="pixel", alignment="scale_shift_depth"))
    metrics.update(prediction[:0], target[:0], mask[:0])
    assert metrics.compute()["abs_rel"].isnan()
    metrics.update(prediction, target, mask)
    expected = metrics.compute()
    metrics.update(torch.ones_like(prediction), target, mask)
    assert metrics.compute() == expected
    assert metrics.counts() == (4, 0, 4)


def test_truth_up_to_scale_is_scored_by_an_alignment_alone():
    prediction, target, mask = _maps()
    for alignment, counts in (("none", (0, 0, 4)), ("scale_ratio_of_medians", (4, 0, 0))):
        metrics = DepthMetrics(Protocol(alignment=alignment))
        metrics.update(prediction, target, mask, scale_known=False)
        assert metrics.counts() == counts
        assert metrics.compute()["abs_rel"].isnan() == (alignment == "none")
