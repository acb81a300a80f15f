import numpy as np
import pytest
import torch
from torch import nn

from depth_lightning.models import DepthAnythingV2, load_weights, normalize
from depth_lightning.models.depth_anything import logits_to_depth


@pytest.mark.parametrize(
    ("encoder", "output", "max_depth", "size", "seed"),
    [
        ("vits", "metric", 10.0, (518, 518), 1),
        ("vits", "metric", 10.0, (518, 686), 2),
        ("vits", "metric", 10.0, (252, 336), 3),
        ("vitb", "metric", 10.0, (252, 336), 4),
        ("vits", "relative", 10.0, (518, 686), 5),
        ("vitl", "metric", 80.0, (140, 196), 14),
    ],
)
def test_equals_the_reference(
    encoder, output, max_depth, size, seed, golden, golden_weights, golden_state, vits_file, tmp_path
):
    path = vits_file
    if encoder != "vits":
        path = tmp_path / "weights.pth"
        torch.save(golden_state(encoder), path)
    network = DepthAnythingV2(encoder, output, max_depth).eval()
    load_weights(network, path)
    expected = np.load(golden / f"{output}_{encoder}_{size[0]}x{size[1]}.npz")

    image = normalize(torch.from_numpy(golden_weights.image(*size, seed))[None])
    with torch.inference_mode():
        tapped = network.encoder(image)
        depth = network(image)[0].numpy()

    for index, tokens in enumerate(tapped):
        np.testing.assert_allclose(tokens[0, 0], expected[f"cls_token_{index}"], atol=1e-4)
        np.testing.assert_allclose(tokens[0, 1:][::97], expected[f"patch_token_{index}"], atol=1e-4)
    stride = expected["stride"]
    difference = np.abs(depth[::stride, ::stride] - expected["depth"]) / np.ptp(expected["depth"])
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-5


def test_output_is_float32_of_the_image_size_and_in_range():
    image = torch.randn(2, 3, 28, 42)
    for output, largest in (("metric", 10.0), ("relative", float("inf"))):
        depth = DepthAnythingV2("tiny", output)(image)
        assert depth.shape == (2, 28, 42)
        assert depth.dtype == torch.float32
        assert depth.min() >= 0
        assert depth.max() <= largest


@pytest.mark.parametrize("shape", [(1, 3, 84, 100), (1, 3, 100, 84), (3, 84, 112), (1, 1, 84, 112)])
def test_wrong_image_shape_is_an_error_with_the_shape(shape):
    with pytest.raises(ValueError, match=rf"multiples of 14, found .*{shape[-1]}\)"):
        DepthAnythingV2("tiny")(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "vitx"}, r"^encoder is one of vits, .* vision transformer in timm, found 'vitx'\. Did you mean"),
        ({"output": "depth"}, r"^output is metric or relative, found 'depth'\.$"),
        ({"max_depth": 0.0}, r"^max_depth is a number above 0\.001 and at most 1,000,000, found 0\.0\.$"),
        ({"max_depth": True}, r"^max_depth is a number .*, found True\.$"),
        ({"out_channels": [8, 8, 8]}, r"^out_channels is four whole numbers, 1 to 2048, found \[8, 8, 8\]\.$"),
        ({"out_channels": [8, 8, 8, 10**7]}, r"^out_channels is four whole numbers, 1 to 2048, found \["),
        ({"features": 10**6}, r"^features is a whole number, 2 to 2048, found 1000000\.$"),
        ({"features": 0}, r"^features is a whole number, 2 to 2048, found 0\.$"),
        ({"freeze_encoder": "no"}, r"^freeze_encoder is true or false, found 'no'\.$"),
        ({"recompute_blocks": 1}, r"^recompute_blocks is true or false, found 1\.$"),
    ],
)
def test_wrong_argument_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthAnythingV2(**{"encoder": "tiny", **arguments})


@pytest.mark.parametrize("encoder", ["vits", "tiny"])
def test_every_parameter_gets_a_gradient_laid_out_like_itself(encoder):
    """DDP waits for a missing gradient, and copies one whose strides differ from its parameter's."""
    network = DepthAnythingV2(encoder)
    network(torch.randn(2, 3, 70, 84)).log().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert [name for name, p in network.named_parameters() if p.grad.stride() != p.stride()] == []


def test_parameter_groups_hold_every_trainable_parameter_once():
    network = DepthAnythingV2("tiny")
    groups = network.parameter_groups()
    assert set(groups) == {"encoder", "head"}
    assert {id(p) for p in groups["encoder"]} == {id(p) for p in network.encoder.parameters()}
    ids = [id(p) for group in groups.values() for p in group]
    assert sorted(ids) == sorted({id(p) for p in network.parameters()})


def test_frozen_encoder_builds_no_graph_and_has_no_group():
    network = DepthAnythingV2("tiny", freeze_encoder=True)
    groups = network.parameter_groups()
    assert list(groups) == ["head"]
    assert len(groups["head"]) == len(list(network.head.parameters()))
    image = torch.randn(1, 3, 28, 28)
    assert not any(tokens.requires_grad for tokens in network.encoder(image))
    network(image).mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.head.parameters())


def test_batch_equals_single_images():
    network = DepthAnythingV2("tiny").eval()
    images = torch.randn(3, 3, 84, 112)
    with torch.inference_mode():
        together = network(images)
        singly = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, singly, rtol=1e-4, atol=1e-4)


def test_depth_is_the_sigmoid_times_max_depth():
    logits = torch.linspace(-30, 30, 601)
    expected = 80 / (1 + np.exp(-logits.double().numpy()))
    np.testing.assert_allclose(logits_to_depth(logits, 80.0).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_log_depth_and_its_gradient_are_finite_at_any_logit(dtype):
    """With the loss scale that fp16 training starts from."""
    logits = torch.tensor([-65504.0, -1e3, -104, -89, -40, -17, 0, 17, 40, 104, 65504], dtype=dtype, requires_grad=True)
    log_depth = logits_to_depth(logits.float(), 10.0).log()
    (log_depth.mean() * 65536).backward()
    assert log_depth.isfinite().all()
    assert logits.grad.isfinite().all()
    expected = 65536 / len(logits) * (1 - logits.detach().double().sigmoid())
    used = logits.detach() > -40
    torch.testing.assert_close(logits.grad[used].double(), expected[used], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_saturated_network_under_autocast_gives_finite_log_gradients(dtype):
    network = DepthAnythingV2("tiny")
    last = network.head.scratch.output_conv2[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.constant_(last.bias, -200.0)
    with torch.autocast("cpu", dtype):
        depth = network(torch.randn(1, 3, 28, 28))
    assert depth.dtype == torch.float32
    (depth.log().mean() * 65536).backward()
    assert depth.log().isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_normalize():
    image = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    std = np.array([0.229, 0.224, 0.225])[:, None, None]
    expected = (image.numpy() / 255 - mean) / std
    for given in (image, image / 255, (image / 255).double()):
        normalized = normalize(given)
        assert normalized.dtype == torch.float32
        np.testing.assert_allclose(normalized.numpy(), expected, atol=1e-5)
    with pytest.raises(TypeError, match="int64"):
        normalize(image.long())


@pytest.mark.parametrize("seed", range(5))
def test_a_random_relative_network_learns(seed):
    """Its last ReLU must not be dead from the start."""
    torch.manual_seed(seed)
    network = DepthAnythingV2("tiny", "relative")
    disparity = network(torch.randn(1, 3, 84, 112))
    assert (disparity > 0).float().mean() > 0.9
    disparity.var().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.head.parameters())


def test_recomputed_blocks_give_the_same_gradients():
    def gradients(**options):
        torch.manual_seed(0)
        network = DepthAnythingV2("tiny", **options)  # type: ignore[arg-type]
        kept = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            depth = network(torch.randn(2, 3, 84, 112))
        depth.log().sum().backward()
        return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, sum(kept.values())

    (expected, plain), (found, less) = gradients(), gradients(recompute_blocks=True)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)
    assert less < 0.8 * plain
