import cv2
import numpy as np
import pytest
import torch

from depth_lightning.data.transforms import EvaluationTransform
from depth_lightning.inference import Predictor, load, predict_stream
from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.sample import DepthKind, DepthSample, collate
from depth_lightning.training import DepthModule

RNG = np.random.default_rng(0)
SIZES = [(60, 90), (61, 90), (60, 90), (120, 50), (60, 90), (42, 42)]
IMAGES = [cv2.resize(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8), size[::-1]) for size in SIZES]


@pytest.fixture(scope="module")
def evaluated(network):
    """What the evaluation scores for each image, alone."""
    module, predictions = DepthModule(network).eval(), []
    for image in IMAGES:
        size = image.shape[:2]
        sample = DepthSample(image, np.ones(size, np.float32), np.ones(size, bool), DepthKind.METRES, "a")
        with torch.no_grad():
            predictions.append(module.predict_batch(collate([EvaluationTransform(42)(sample)]))[0].numpy())
    assert min(depth.std() for depth in predictions) > 0.01, "nothing to compare: the network is constant"
    return predictions


def test_one_image_is_predicted_as_in_evaluation(predictor, evaluated):
    for image, expected in zip(IMAGES, evaluated, strict=True):
        depth = predictor.predict(image)
        assert (depth.shape, depth.dtype) == (image.shape[:2], np.float32)
        np.testing.assert_allclose(depth, expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_many_are_predicted_as_in_evaluation_whatever_the_batch(predictor, evaluated, batch_size):
    def read(index):
        return str(index), IMAGES[index]

    results = list(predict_stream(predictor, range(len(IMAGES)), read, batch_size=batch_size))
    assert sorted(result.name for result in results) == [str(index) for index in range(len(IMAGES))]
    for result in results:
        assert result.image is IMAGES[int(result.name)]
        np.testing.assert_allclose(result.prediction.depth, evaluated[int(result.name)], atol=1e-5)


def test_disagreement_is_the_distance_to_the_mirrored_prediction(predictor):
    image = IMAGES[0]
    (prediction,) = predictor.predict_batch([predictor.prepare(image)], [image.shape[:2]], disagreement=True)
    mirrored = predictor.predict(image[:, ::-1].copy())[:, ::-1]
    assert prediction.disagreement.max() > 1e-3
    np.testing.assert_allclose(prediction.disagreement, abs(prediction.depth - mirrored), atol=1e-4)
    np.testing.assert_allclose(prediction.depth, predictor.predict(image), atol=1e-5)


def test_a_run_checkpoint_knows_its_network(network, predictor, tmp_path):
    model = {"_target_": "depth_lightning.models.DepthAnythingV2", "encoder": "tiny", "output": "metric"}
    config = {"model": {**model, "max_depth": 10.0, "weights": None, "init": "all"}, "data": {"size": 42}}
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"config": config, "state_dict": state}, tmp_path / "best.ckpt")
    cv2.imwrite(str(tmp_path / "photo.png"), IMAGES[0][..., ::-1])
    model = load(tmp_path / "best.ckpt", device="cpu")
    np.testing.assert_array_equal(model.predict(tmp_path / "photo.png"), predictor.predict(IMAGES[0]))
    assert model.metric and model.fingerprint() == predictor.fingerprint()
    torch.save({"config": config, "state_dict": dict(list(state.items())[:4])}, tmp_path / "torn.ckpt")
    with pytest.raises(ValueError, match="does not fit"):
        load(tmp_path / "torn.ckpt")


def test_weights_are_loaded_with_what_they_do_not_tell(network, predictor, tmp_path):
    save_weights(network, tmp_path / "mine.pth")
    model = load(tmp_path / "mine.pth", encoder="tiny", max_depth=10.0, size=42, device="cpu")
    np.testing.assert_array_equal(model.predict(IMAGES[0]), predictor.predict(IMAGES[0]))
    (tmp_path / "mine.pth.json").unlink()
    for told in ({}, {"encoder": "tiny"}):
        with pytest.raises(ValueError, match="does not identify its network"):
            load(tmp_path / "mine.pth", **told)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pth", encoder="tiny", max_depth=10.0)


def test_fingerprints_differ_where_a_weight_does(network, predictor):
    other = DepthAnythingV2("tiny")
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-3
    assert Predictor(other, device="cpu").fingerprint() != predictor.fingerprint()


def test_what_is_no_image_is_refused(predictor):
    for wrong in (np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.float32), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            predictor.predict(wrong)


def test_wrong_precision_and_device(network):
    with pytest.raises(ValueError, match="precision is one of"):
        Predictor(network, precision="16")
    with pytest.raises(ValueError, match=r"^device cuda:77 is not available: "):
        Predictor(network, device="cuda:77")


@pytest.mark.parametrize("layout", ["official", "safetensors"])
def test_weights_with_their_metadata_load_with_nothing_else(layout, network, predictor, tmp_path):
    path = tmp_path / "mine.weights"
    save_weights(network, path, layout, {"size": 42})
    loaded = load(path, device="cpu")
    assert (loaded.size, loaded.network.max_depth, loaded.metric) == (42, 10.0, True)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.predict(image), predictor.predict(image))
    assert load(path, size=56, device="cpu").size == 56


def test_a_picture_that_costs_too_much_is_named(predictor, tmp_path):
    strip = np.zeros((2, 9000, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "strip.png"), strip)
    message = r"expected an image that takes the network at most 16,384 tokens, found \d+"
    with pytest.raises(ValueError, match=rf"^{tmp_path}/strip\.png: {message}"):
        predictor.predict(tmp_path / "strip.png")
    with pytest.raises(ValueError, match=rf"^{message}"):
        predictor.predict(strip)
