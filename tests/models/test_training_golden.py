import json

import numpy as np
import torch

from depth_lightning.models import DepthAnythingV2, load_weights, normalize


def gradient_norm(parameters):
    return torch.stack([p.grad.norm() for p in parameters]).norm().item()


def test_eight_training_steps_equal_the_reference(golden, golden_weights, golden_state, tmp_path):
    run = json.loads((golden / "train_vits_140x182.json").read_text())
    state = golden_state(run["encoder"])
    for key, factor in run["rescaled"].items():
        state[key] *= factor
    torch.save(state, tmp_path / "weights.pth")
    network = DepthAnythingV2(run["encoder"], "metric", run["max_depth"]).train()
    load_weights(network, tmp_path / "weights.pth")
    groups = network.parameter_groups()
    optimizer = torch.optim.AdamW(
        [
            {"params": groups["encoder"], "lr": run["lr_encoder"]},
            {"params": groups["head"], "lr": run["lr_head"]},
        ],
        betas=tuple(run["betas"]),
        weight_decay=run["weight_decay"],
    )
    losses, norms = [], []
    for step in range(run["steps"]):
        seeds = [run["first_image_seed"] + run["batch_size"] * step + item for item in range(run["batch_size"])]
        sources = [golden_weights.image(run["height"], run["width"], 1000 + seed) for seed in seeds]
        target = torch.from_numpy(np.stack([np.where(s[1] < 0.25, 0, 0.5 + 9 * s[0]) for s in sources]))
        images = np.stack([golden_weights.image(run["height"], run["width"], seed) for seed in seeds])
        prediction = network(normalize(torch.from_numpy(images)))
        valid = target > 0
        difference = target[valid].log() - prediction[valid].log()
        loss = (difference.square().mean() - 0.5 * difference.mean().square()).sqrt()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        norms.append([gradient_norm(groups["encoder"]), gradient_norm(groups["head"])])

    np.testing.assert_allclose(losses, run["losses"], rtol=1e-3)
    np.testing.assert_allclose(norms, run["grad_norm_encoder_head"], rtol=1e-3)

    # The first image of the last batch, seen after the last step.
    with torch.no_grad():
        after = network.eval()(normalize(torch.from_numpy(images[:1])))[0]
    expected = run["prediction_after"]
    np.testing.assert_allclose(after[0, :4], expected["corner"], rtol=1e-4)
    np.testing.assert_allclose([after.mean(), after.std()], [expected["mean"], expected["std"]], rtol=1e-4)
