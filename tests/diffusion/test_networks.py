"""Are the networks LDM's and DiT's, and what they refuse?"""

from __future__ import annotations

import pytest
import torch

from litevae.cost import parameter_count
from litevae.diffusion.config import NetworkConfig
from litevae.diffusion.dry_run import network_costs
from litevae.diffusion.networks import build_network


@pytest.mark.parametrize(
    ("channels", "side", "parameters"), [(3, 64, 274_056_163), (4, 32, 274_060_196), (12, 32, 274_092_460)]
)
def test_the_defaults_are_the_unet_of_ldm(channels: int, side: int, parameters: int) -> None:
    """Of its FFHQ and CelebA-HQ configs, 274,056,163 parameters on a latent of 64x64x3; on LiteVAE's, of 32x32x4."""
    with torch.device("meta"):
        assert parameter_count(build_network(NetworkConfig(), channels, side)) == parameters


def test_ldm_s_unet_costs_a_quarter_on_latents_of_half_the_side() -> None:
    """24.3 GMAC on 32x32x4, as other counters have it."""
    _, macs = network_costs(NetworkConfig(), 4, 32)
    assert macs / 1e9 == pytest.approx(24.3, abs=0.15)


BAD = [
    ({"kind": "mlp"}, "network.kind must be one of 'unet', 'dit', got 'mlp'"),
    ({"unet_channels": 50}, "network.unet_channels must make widths that 32 and network.unet_head_channels=32 divide"),
    ({"classes": True}, "network.classes must be false for network.kind=unet, which knows none, got True"),
    ({"kind": "dit", "dit_heads": 5}, "network.dit_heads must divide network.dit_width=384, got 5"),
    ({"class_dropout": 1.0}, "network.class_dropout must be at least 0 and below 1, got 1.0"),
    ({"unet_multipliers": []}, "network.unet_multipliers must have at least one entry"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_networks_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "side", "message"),
    [
        (NetworkConfig(), 12, r"network.unet_multipliers must halve or cut the latent's side of 12 \(a\) evenly"),
        (NetworkConfig(kind="dit"), 5, r"network.dit_patch must halve or cut the latent's side of 5 \(a\) evenly"),
    ],
)
def test_a_latent_that_cannot_be_halved_is_refused(network: NetworkConfig, side: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network.check_latent(side, "a")
