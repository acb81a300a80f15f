import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as peer

from depth_lightning.data.photometric import ColourNoise, adjust_colour

SEEDS = list(range(64))


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (2, 3, 9, 12), generator=generator, dtype=torch.uint8)
    coarse[0, :, :4] = coarse[0, :1, :4]  # grey pixels have no hue
    coarse[1, :, :2] = 0
    return coarse


def batch(image):
    return image[:1].expand(len(SEEDS), -1, -1, -1)


@pytest.mark.parametrize(
    ("adjusted", "neutral"), [("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.0)]
)
@pytest.mark.parametrize("change", [-0.1, 0.07, 0.5])
def test_every_adjustment_is_torchvisions(image, adjusted, neutral, change):
    names = ("brightness", "contrast", "saturation", "hue")
    factors = [torch.full((2, 1, 1), 0.0 if name == "hue" else 1.0) for name in names]
    factors[names.index(adjusted)] += change
    scaled = image.float() / 255
    expected = getattr(peer, f"adjust_{adjusted}")(scaled, neutral + change)
    torch.testing.assert_close(adjust_colour(scaled, *factors), expected, atol=2e-6, rtol=0)


def test_images_of_a_batch_are_adjusted_each_by_its_own_factors(image):
    scaled = image.float() / 255
    factors = [torch.tensor(values).view(2, 1, 1) for values in ((0.9, 1.1), (1.1, 0.95), (1.0, 0.9), (0.1, -0.05))]
    together = adjust_colour(scaled, *factors)
    for index in range(2):
        alone = adjust_colour(scaled[index : index + 1], *(factor[index : index + 1] for factor in factors))
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-6, rtol=0)


def test_an_image_depends_on_its_seed_and_not_on_its_batch(image):
    images = batch(image)
    together = ColourNoise()(images, SEEDS)
    assert together.dtype == torch.float32 and together.min() >= 0 and together.max() <= 1
    for index in (0, 7, 63):
        assert torch.equal(ColourNoise()(images[:1], [SEEDS[index]])[0], together[index])
    assert len({tuple(pixels.flatten().tolist()) for pixels in together}) > 32  # a quarter stay as they are


def test_seeds_of_the_sampler_are_taken(image):
    changed = ColourNoise(jitter_probability=1, noise_probability=1)(batch(image)[:2], [2**64 - 1, 2**63])
    assert changed.isfinite().all() and not torch.equal(changed[0], changed[1])


def test_half_are_jittered_and_half_are_noisy(image):
    images = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8).expand(400, -1, -1, -1)
    changed = ColourNoise()(images, range(400)) - 100 / 255
    noisy = changed.std((2, 3)).amax(1) > 1e-5
    jittered = changed.mean((1, 2, 3)).abs() > 2e-3
    assert 160 < noisy.sum() < 240
    assert 150 < jittered.sum() < 240
    assert 80 < (noisy & ~jittered).sum() < 140


@pytest.mark.parametrize(("smallest", "largest"), [(0, 25), (10, 25), (20, 20)])
def test_noise_has_the_deviation_that_was_drawn(smallest, largest):
    grey = torch.full((200, 3, 64, 64), 128, dtype=torch.uint8)
    noise = ColourNoise(jitter_probability=0, noise_probability=1, noise_std=(smallest, largest))
    noisy = noise(grey, range(200)) - 128 / 255
    deviations = noisy.std((1, 2, 3)).numpy()
    uniform = np.linspace(smallest / 255, largest / 255, 200)
    assert abs(np.sort(deviations) - uniform).max() < 0.15 * (largest - smallest) / 255 + 0.003
    assert abs(float(noisy.mean())) < 2e-4  # four standard errors


def test_nothing_drawn_changes_nothing(image):
    nothing = ColourNoise(jitter_probability=0, noise_probability=0)
    torch.testing.assert_close(nothing(image, [1, 2]), image / 255, atol=1e-6, rtol=0)


def test_what_the_defaults_draw_stays():
    """The draws of the first version, whose one strength and one probability are the defaults of all."""
    for seed in SEEDS:
        rng = np.random.default_rng((seed, 1))
        jitters, noises = rng.random(2) < 0.5
        change = rng.uniform(-0.1, 0.1, 4) * jitters
        expected = [*(1 + change[:3]), change[3], rng.uniform(0, 5 / 255) * noises]
        assert ColourNoise()._draw(seed).tolist() == expected


def test_each_strength_and_probability_is_of_its_own():
    strengths = {"brightness": 0.1, "contrast": 0.2, "saturation": 0.3, "hue": 0.4}
    noise = ColourNoise(jitter_probability=0.25, noise_probability=0.75, noise_std=(3, 9), **strengths)
    drawn = np.stack([noise._draw(seed) for seed in range(2000)])
    change = drawn[:, :4] - [1, 1, 1, 0]
    np.testing.assert_allclose(abs(change).max(0), list(strengths.values()), rtol=0.02)
    assert (change[:, 0] != 0).mean() == pytest.approx(0.25, abs=0.04)
    deviation = 255 * drawn[:, 4][drawn[:, 4] > 0]
    assert len(deviation) / 2000 == pytest.approx(0.75, abs=0.04)
    assert (deviation.min(), deviation.max()) == pytest.approx((3, 9), abs=0.02)
