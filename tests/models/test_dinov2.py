from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from depth_lightning.models.dinov2 import DINOv2
from depth_lightning.models.sizes import SIZES


def test_equals_timm_at_the_size_of_the_position_table():
    torch.manual_seed(0)
    encoder = DINOv2(SIZES["vits"]).eval()
    reference = timm.create_model("vit_small_patch14_dinov2", img_size=518, num_classes=0).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    reference.load_state_dict({k: v for k, v in encoder.state_dict().items() if k != "mask_token"})
    image = torch.randn(1, 3, 518, 518)
    with torch.inference_mode():
        tapped = encoder(image)
        expected = reference.forward_intermediates(
            image,
            indices=[2, 5, 8, 11],
            norm=True,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
    for tokens, (patches, class_token) in zip(tapped, expected, strict=True):
        torch.testing.assert_close(tokens, torch.cat([class_token, patches], dim=1), rtol=1e-4, atol=1e-4)


def test_giant_equals_timm_narrowed():
    """The SwiGLU layers, at a width that a test can afford."""
    torch.manual_seed(0)
    encoder = DINOv2(replace(SIZES["vitg"], width=48, depth=2, heads=2, taps=(0, 0, 0, 1), grid=(4, 4))).eval()
    reference = timm.create_model(
        "vit_giant_patch14_dinov2", img_size=56, num_classes=0, embed_dim=48, depth=2, num_heads=2
    ).eval()
    reference.load_state_dict({k: v for k, v in encoder.state_dict().items() if k != "mask_token"})
    image = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(encoder(image)[-1], reference.forward_features(image))


def cubic(x):
    """The cubic convolution kernel with a = -0.75."""
    x = np.abs(x)
    near = 1.25 * x**3 - 2.25 * x**2 + 1
    far = -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resample(values, factor, length):
    """The first axis at `length` positions that lie 1 / factor apart, edges repeated."""
    positions = (np.arange(length) + 0.5) / factor - 0.5
    base = np.floor(positions).astype(int)
    out = 0
    for offset in range(-1, 3):
        weight = cubic(positions - (base + offset))
        out = out + weight.reshape(-1, *[1] * (values.ndim - 1)) * values[np.clip(base + offset, 0, len(values) - 1)]
    return out


@pytest.mark.parametrize(("rows", "columns"), [(37, 49), (10, 13), (37, 36), (60, 37)])
def test_positions_lie_where_the_factor_with_its_tenth_of_a_patch_puts_them(rows, columns):
    encoder = DINOv2(SIZES["vits"])
    table = torch.randn_like(encoder.pos_embed)
    encoder.pos_embed.data.copy_(table)
    grid = table[0, 1:].double().numpy().reshape(37, 37, -1)
    expected = resample(grid, (rows + 0.1) / 37, rows)
    expected = resample(expected.swapaxes(0, 1), (columns + 0.1) / 37, columns).swapaxes(0, 1)

    positions = encoder.positions(rows, columns).detach()[0]

    torch.testing.assert_close(positions[0], table[0, 0])
    np.testing.assert_allclose(positions[1:].numpy(), expected.reshape(rows * columns, -1), atol=2e-4)


def test_positions_are_those_of_interpolate_at_every_size():
    encoder = DINOv2(SIZES["tiny"])
    encoder.pos_embed.data.normal_()
    rows, columns = encoder.grid
    table = encoder.pos_embed.detach()[0, 1:].view(1, rows, columns, -1).permute(0, 3, 1, 2)
    for size in [(r, c) for r in range(1, 50, 6) for c in (1, 2, 7, 8, 9, 24, 100)]:
        factor = ((size[0] + 0.1) / rows, (size[1] + 0.1) / columns)
        expected = F.interpolate(table, scale_factor=factor, mode="bicubic").flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder.positions(*size).detach()[:, 1:], expected, rtol=0, atol=2e-5)


class Positions(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, image):
        return self.encoder.positions(image.shape[0] // 14, image.shape[1] // 14)


@pytest.mark.parametrize("name", ["vits", "tiny"])
def test_positions_follow_the_size_when_traced_once(name):
    encoder = DINOv2(SIZES[name])
    encoder.pos_embed.data.normal_()
    sides = {"image": {0: 14 * torch.export.Dim("rows", min=2), 1: 14 * torch.export.Dim("columns", min=2)}}
    traced = torch.export.export(Positions(encoder), (torch.zeros(70, 98),), dynamic_shapes=sides).module()
    rows, columns = encoder.grid
    assert torch.equal(traced(torch.zeros(14 * rows, 14 * columns)), encoder.pos_embed)
    for size in [(columns, rows + 1), (rows, columns + 12), (rows + 3, columns), (2, 90)]:
        positions = traced(torch.zeros(14 * size[0], 14 * size[1]))
        torch.testing.assert_close(positions, encoder.positions(*size), rtol=0, atol=1e-6)


def test_positions_are_untouched_at_the_size_of_the_table_only():
    encoder = DINOv2(SIZES["tiny"])
    assert encoder.positions(6, 8) is encoder.pos_embed
    assert encoder.positions(8, 6).shape == encoder.pos_embed.shape
    assert not torch.equal(encoder.positions(8, 6), encoder.pos_embed)


def test_positions_keep_half_precision_weights_in_half_precision():
    encoder = DINOv2(SIZES["tiny"]).bfloat16()
    assert encoder.positions(3, 3).dtype == torch.bfloat16
