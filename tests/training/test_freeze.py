"""Does a frozen encoder or decoder stay as it is, bit for bit, at no cost?"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from litevae import load_model, train
from litevae.runs.processes import Processes
from litevae.training.config import RunConfig
from litevae.training.estimate import estimate
from litevae.training.networks import Networks, freeze
from litevae.training.update import Update

from .runs import assert_same_state, checkpoint, logged
from .test_update import config_of, pixels, state_of

OTHER = {"encoder": "decoder", "decoder": "encoder"}
OF_PART = {"encoder": ("encoder.", "quant_conv."), "decoder": ("decoder.", "post_quant_conv.")}

ADAPTIVE = ["loss.adversarial_weight=1", "loss.adversarial_weighting=adaptive"]


def frozen_config(part: str, kind: str = "litevae", **changes: dict[str, Any]) -> RunConfig:
    model: dict[str, Any] = {"dropout": 0.3, "use_quant_conv": True}
    if kind == "sd-vae":
        without = dict.fromkeys(("extraction_channels", "extraction_multipliers"))
        without |= dict.fromkeys(("aggregation_channels", "aggregation_multipliers"))
        model = {"kind": "sd-vae", "block_out_channels": [4, 4, 4, 4], "layers_per_block": 1, **without}
    train = {"freeze": part, "start_from": "x", "ema_decay": 0.5, **changes.pop("train", {})}
    return config_of(model=model, train=train, **changes)


def of(part: str, name: str) -> bool:
    return name.removeprefix("vae.").startswith(OF_PART[part])


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("kind", ["litevae", "sd-vae"])
def test_an_update_changes_the_other_part_alone(part, kind):
    changes = {} if kind == "sd-vae" else {"train": {"gradient_checkpointing": True, "accumulation": 2}}
    config, processes = frozen_config(part, kind, **changes), Processes("cpu")
    networks = Networks(config, processes)
    update = Update(config, networks, processes)
    models = networks.model, networks.ema
    before = [state_of(model) for model in models]
    for step in range(2):
        update(pixels(), step)
    for model, start in zip(models, before, strict=True):
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
        assert moved
        assert all(of(OTHER[part], name) for name in moved)
    trained = {parameter for name, parameter in networks.model.named_parameters() if of(OTHER[part], name)}
    assert set(networks.generator.optimizer.state) == trained


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_no_gradient_where_none_is_needed(part):
    networks = Networks(frozen_config(part), Processes("cpu"))
    image = pixels().float() / 127.5 - 1
    output = networks.model(image)
    assert output.latent.requires_grad == (part == "decoder")
    output.sample.square().sum().backward()
    for name, parameter in networks.model.named_parameters():
        assert (parameter.grad is None) == of(part, name), name


def test_a_frozen_encoder_has_no_dropout():
    networks = Networks(frozen_config("encoder"), Processes("cpu"))
    image = pixels().float() / 127.5 - 1
    expected = networks.model.eval().encode(image).latent_dist.mean
    networks.model.train()
    assert torch.equal(networks.model.encode(image).latent_dist.mean, expected)
    latent = expected[:, :, :2, :2]
    assert not torch.equal(networks.model.decode(latent).sample, networks.model.decode(latent).sample)


def test_the_estimate_counts_what_is_trained():
    alone = {"adversarial_weight": 0.0}
    config = frozen_config("encoder", loss=alone)
    networks = Networks(config, Processes("cpu"))
    needed = estimate(config, networks.model, None, None, batch_size=2)
    trained = sum(p.nbytes for name, p in networks.model.named_parameters() if of("decoder", name))
    assert needed.optimizer_bytes == 2 * trained
    whole = config_of(loss=alone, model={"dropout": 0.3, "use_quant_conv": True}, train={"ema_decay": 0.5})
    everything = estimate(whole, Networks(whole, Processes("cpu")).model, None, None, batch_size=2)
    assert needed.activation_bytes < everything.activation_bytes
    assert needed.gradient_bytes <= trained


def test_nothing_is_frozen_by_default():
    networks = Networks(config_of(), Processes("cpu"))
    freeze(networks.model, None)
    assert all(parameter.requires_grad for parameter in networks.model.parameters())


@pytest.mark.slow
def test_a_decoder_is_tuned_on_the_latents_of_a_run(run, capsys):
    """From the averaged weights, which are what that run leaves; resuming changes nothing."""
    _, first = run("first", "train.ema_decay=0.9")
    start = [f"train.start_from={first}", "train.freeze=encoder", "train.ema_decay=0.9", "train.seed=1"]
    _, unbroken = run("unbroken", *start)
    _, tuned = run("tuned", *start, "train.steps=4")
    assert "the encoder is frozen" in capsys.readouterr().out
    assert train.main(["--resume", str(tuned), "train.steps=6"]) == 0
    before, after = (load_model(folder) for folder in (first, tuned))
    assert logged(first, "latents")[0]["std"] != logged(tuned, "latents")[-1]["std"]  # of other crops
    assert before.architecture == after.architecture  # the scale of the latents is its first one
    before, after = before.state_dict(), after.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == of("encoder", name), name
    states = [checkpoint(folder, 6) for folder in (tuned, unbroken)]
    encoders = zip(states[0]["model"].items(), states[0]["ema"].values(), strict=True)
    assert all(torch.equal(value, averaged) for (name, value), averaged in encoders if of("encoder", name))
    assert [state.pop("frozen") for state in states] == ["encoder"] * 2
    assert_same_state(*states)
    assert train.main(["--resume", str(tuned), "train.steps=8", "train.freeze=null"]) == 2
    assert "train.freeze must be encoder as when" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.freeze=encoder"], "train.freeze must be null unless train.start_from names .*, got 'encoder'"),
        (
            ["train.freeze=latent", "train.start_from=x"],
            "train.freeze must be one of 'encoder', 'decoder', got 'latent'",
        ),
        (
            ["train.freeze=decoder", "train.start_from=x", *ADAPTIVE],
            "adversarial_weighting must be constant with train.freeze=decoder",
        ),
        (
            [
                "train.freeze=decoder",
                "train.start_from=x",
                "loss.adversarial_weight=0.1",
                "train.gradient_ratio_every=5",
            ],
            "train.gradient_ratio_every must be 0 with train.freeze=decoder, got 5, which compares",
        ),
    ],
)
def test_what_cannot_be_frozen_is_refused(run, capsys, overrides, message):
    code, folder = run("refused", *overrides)
    assert code == 2
    assert not folder.exists()
    assert re.search(message, capsys.readouterr().err)
