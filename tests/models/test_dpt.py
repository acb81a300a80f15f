import pytest
import torch
import torch.nn.functional as F

from depth_lightning.models.dpt import DPTHead, Float32Conv2d, Fusion, _Resize, _resize


def test_logits_have_the_size_asked_for():
    head = DPTHead(16, 8, (4, 6, 8, 10))
    maps = [torch.randn(2, 16, 3, 5) for _ in range(4)]
    assert head(maps, (42, 70)).shape == (2, 42, 70)


def test_every_map_matters():
    head = DPTHead(16, 8, (4, 6, 8, 10))
    maps = [torch.randn(1, 16, 3, 5, requires_grad=True) for _ in range(4)]
    head(maps, (42, 70)).sum().backward()
    assert all(features.grad.abs().sum() > 0 for features in maps)


def test_memory_format_changes_nothing():
    head = DPTHead(16, 8, (4, 6, 8, 10))
    maps = [torch.randn(2, 16, 3, 5) for _ in range(4)]
    expected = head(maps, (42, 70))
    head = head.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        head([features.to(memory_format=torch.channels_last) for features in maps], (42, 70)), expected
    )


def test_unused_residual_unit_is_in_the_state_dict_and_not_among_the_parameters():
    head = DPTHead(16, 8, (4, 6, 8, 10))
    prefix = "scratch.refinenet4.resConfUnit1"
    unused = {f"{prefix}.{conv}.{kind}" for conv in ("conv1", "conv2") for kind in ("weight", "bias")}
    assert {name for name, _ in head.named_buffers()} == unused
    assert unused <= set(head.state_dict())
    assert not unused & {name for name, _ in head.named_parameters()}


@pytest.mark.parametrize("with_skip", [True, False])
def test_fusion_equals_its_formula(with_skip):
    fusion = Fusion(4)
    x = torch.randn(1, 4, 3, 5)
    skip = torch.randn(1, 4, 3, 5) if with_skip else None

    def residual(unit, value):
        weights = [getattr(unit, name) for name in ("conv1", "conv2")]
        out = value
        for conv in weights:
            out = F.conv2d(out.clamp(min=0), conv.weight, conv.bias, padding=1)
        return out + value

    expected = x if skip is None else x + residual(fusion.resConfUnit1, skip)
    expected = residual(fusion.resConfUnit2, expected)
    expected = F.interpolate(expected, size=(6, 9), mode="bilinear", align_corners=True)
    expected = torch.einsum("oi,bihw->bohw", fusion.out_conv.weight[:, :, 0, 0], expected)
    expected = expected + fusion.out_conv.bias[:, None, None]
    torch.testing.assert_close(fusion(x, skip, (6, 9)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_are_not_rounded_to_half_precision(dtype):
    torch.manual_seed(0)
    convolution = Float32Conv2d(32)
    x = torch.randn(2, 32, 6, 5).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        logits = convolution(x)
    assert logits.dtype == torch.float32
    weight = convolution.weight.detach().double()[0, :, 0, 0]
    expected = torch.einsum("c,bchw->bhw", weight, x.detach().double()) + convolution.bias.detach().double()
    torch.testing.assert_close(logits[:, 0].double(), expected, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(logits)
    logits.backward(upstream)
    torch.testing.assert_close(x.grad, (upstream * weight[:, None, None]).to(dtype))
    gradient = torch.einsum("bhw,bchw->c", upstream[:, 0].double(), x.detach().double())
    torch.testing.assert_close(convolution.weight.grad[0, :, 0, 0].double(), gradient, rtol=1e-5, atol=1e-5)


def test_what_is_kept_of_the_last_map_is_in_half_precision():
    convolution, kept = Float32Conv2d(32), []
    x = torch.randn(1, 32, 20, 20, dtype=torch.bfloat16, requires_grad=True)
    keep = torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor)
    with keep, torch.autocast("cpu", torch.bfloat16):
        convolution(x)
    assert max(tensor.nbytes for tensor in kept) == x.nbytes


@pytest.mark.parametrize(
    ("from_size", "to_size"), [((3, 5), (6, 9)), ((4, 4), (7, 4)), ((1, 2), (3, 1)), ((9, 8), (4, 5))]
)
def test_the_gradient_of_resizing_is_that_of_interpolation(from_size, to_size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *from_size, dtype=torch.float64, requires_grad=True)
    expected = F.interpolate(x, to_size, mode="bilinear", align_corners=True)
    resized = _Resize.apply(x, to_size)
    torch.testing.assert_close(resized, expected)
    upstream = torch.randn_like(expected)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = upstream.contiguous(memory_format=layout)
        gradients = [torch.autograd.grad(out, x, given, retain_graph=True)[0] for out in (resized, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_resizing_in_half_precision_is_as_exact_as_its_dtype(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 6).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype):
        resized = _resize(x, (9, 10))
    exact = x.detach().double().requires_grad_()
    expected = F.interpolate(exact, (9, 10), mode="bilinear", align_corners=True)
    assert resized.dtype == dtype and resized.grad_fn.name() == "_ResizeBackward"
    torch.testing.assert_close(resized, expected.to(dtype))
    upstream = torch.randn_like(resized)
    resized.backward(upstream)
    expected.backward(upstream.double())
    assert (x.grad.double() - exact.grad).norm() <= torch.finfo(dtype).eps * exact.grad.norm()


def test_the_compiler_takes_the_head_in_one_graph_at_any_size():
    torch.manual_seed(0)
    head = DPTHead(16, 8, (8, 8, 8, 8)).to(memory_format=torch.channels_last)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    for rows, columns in ((3, 4), (4, 6)):
        maps = [torch.randn(1, 16, rows, columns) for _ in range(4)]
        gradients = []
        for network in (head, compiled):
            head.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(maps, (14 * rows, 14 * columns))
            logits.square().mean().backward()
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in head.parameters()]))
        torch.testing.assert_close(*gradients, rtol=0.02, atol=0.02 * gradients[0].abs().max().item())
