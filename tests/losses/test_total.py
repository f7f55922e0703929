"""Does the total add up Eq. (1): every term by name, weights applied once, gradients through all of it?"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from litevae.losses import AutoencoderLoss, LossConfig, gaussian_high_pass_loss, kl_loss, l1_loss
from litevae.losses.wavelet import wavelet_charbonnier_loss
from litevae.models.latent import DiagonalGaussian
from litevae_kernels import haar_dwt2d

CONFIG = LossConfig(l1_weight=2.0, kl_weight=0.25, kl_reduction="sum", wavelet_weight=3.0, gaussian_weight=5.0)


class Batch:
    """Random tensors of one training step, float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.image = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator)
        self.reconstruction = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=generator).requires_grad_()
        self.moments = torch.randn(2, 8, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()

    def loss(self, config: LossConfig, **arguments: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        wavelet = arguments.pop("wavelet", None)
        posterior = DiagonalGaussian(self.moments)
        return AutoencoderLoss(config)(self.image, self.reconstruction, wavelet, posterior, **arguments)


def test_total_is_the_weighted_sum_and_terms_are_unweighted() -> None:
    batch = Batch()
    total, terms = batch.loss(CONFIG)
    expected = {
        "l1": l1_loss(batch.reconstruction, batch.image),
        "kl": kl_loss(DiagonalGaussian(batch.moments), batch.image, "sum"),
        "wavelet": wavelet_charbonnier_loss(batch.reconstruction, batch.image, eps=CONFIG.wavelet_eps),
        "gaussian": gaussian_high_pass_loss(batch.reconstruction, batch.image),
    }
    assert list(terms) == ["total", *expected]
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value.detach(), rtol=1e-12, atol=0)
    by_hand = 2 * expected["l1"] + 0.25 * expected["kl"] + 3 * expected["wavelet"] + 5 * expected["gaussian"]
    torch.testing.assert_close(total, by_hand, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["l1", "kl", "wavelet", "gaussian"])
def test_every_term_alone_has_a_gradient_and_zero_leaves_it_out(name: str) -> None:
    almost_none = LossConfig(l1_weight=0, kl_weight=0, wavelet_weight=0, gaussian_weight=1.0)
    batch = Batch()
    total, terms = batch.loss(replace(almost_none, **{"gaussian_weight": 0.0, f"{name}_weight": 1.0}))
    assert list(terms) == ["total", name]
    total.backward()
    leaf = batch.moments if name == "kl" else batch.reconstruction
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() > 0


def test_the_decoder_s_sub_bands_are_taken_where_there_are_any() -> None:
    batch = Batch()
    bands = (2 * haar_dwt2d(batch.reconstruction, 1, scaling="mean")[0]).detach().requires_grad_()
    total, terms = batch.loss(CONFIG, wavelet=bands)
    other = wavelet_charbonnier_loss(batch.reconstruction, batch.image, eps=CONFIG.wavelet_eps, wavelet=bands)
    torch.testing.assert_close(terms["wavelet"], other.detach(), rtol=1e-12, atol=0)
    assert terms["wavelet"] != batch.loss(CONFIG)[1]["wavelet"]
    total.backward()
    assert bands.grad is not None
    assert (bands.grad[:, 3:] != 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ldl_weight": 0.5},
            r"ema_reconstruction must be given for loss\.ldl_weight=0\.5, got None; .*train\.ema_decay",
        ),
        (
            {"adversarial_weight": 0.1},
            r"fake_logits must be given for loss\.adversarial_weight=0\.1 .*, got None; pass",
        ),
    ],
)
def test_a_term_whose_input_is_missing_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batch().loss(replace(CONFIG, **change))


def test_before_its_start_the_adversarial_term_is_left_out() -> None:
    _, terms = Batch().loss(replace(CONFIG, adversarial_weight=0.1, adversarial_start=10))
    assert "adversarial" not in terms


def test_terms_are_detached() -> None:
    _, terms = Batch().loss(CONFIG)
    assert not any(term.requires_grad for term in terms.values())


def test_default_kl_weight_is_ldm_s() -> None:
    """1e-6 x sum-KL / 196,608 at 256x256: FACTS' 5.09e-12 per unit of sum-KL."""
    config = LossConfig()
    image = torch.zeros(1, 3, 256, 256)
    posterior = DiagonalGaussian(torch.randn(1, 8, 32, 32))
    weighted = config.kl_weight * kl_loss(posterior, image, config.kl_reduction)
    assert (weighted / posterior.kl().sum()).item() == pytest.approx(5.086e-12, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l1_weight": -1.0}, "loss.l1_weight must be finite and at least 0, got -1.0"),
        ({"wavelet_weight": float("nan")}, "loss.wavelet_weight must be finite and at least 0, got nan"),
        ({"kl_reduction": "mean"}, "loss.kl_reduction must be one of 'per_image_element', 'sum', got 'mean'"),
        ({"wavelet_eps": 0.0}, "loss.wavelet_eps must be finite and at least 1e-18, got 0.0"),
        ({"gaussian_kernel_size": 4}, "loss.gaussian_kernel_size must be odd, got 4"),
        ({"gaussian_sigma": 0.0}, "loss.gaussian_sigma must be finite and above 0, got 0.0"),
        (
            {"l1_weight": 0.0, "kl_weight": 0.0, "wavelet_weight": 0.0, "gaussian_weight": 0.0},
            "loss must have at least one weight above 0, got 0 for every term",
        ),
    ],
)
def test_wrong_config(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:
        LossConfig(**change)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_gradients_of_the_last_layer_survive_float16() -> None:
    """A mean over 200,000 numbers has gradients of 5e-6, with a weight of 1e-8: below the smallest of float16, 6e-8."""
    torch.manual_seed(0)
    features, image = torch.randn(1, 4, 256, 256), torch.randn(1, 3, 256, 256)
    moments = torch.zeros(1, 8, 2, 2)
    config = LossConfig(l1_weight=0.002, adversarial_weight=0.1, adversarial_weighting="adaptive")
    found = []
    for dtype in (torch.float64, torch.float16):
        weight = torch.full((3, 4, 1, 1), 0.1, dtype=torch.float64).to(dtype).float().requires_grad_()
        reconstruction = torch.nn.functional.conv2d(features.to(dtype), weight.to(dtype))
        logits = (0.02 * reconstruction[:, :1], 0.03 * reconstruction[:, 1:])
        _, terms = AutoencoderLoss(config)(
            image, reconstruction, None, DiagonalGaussian(moments), fake_logits=logits, last_layer=weight
        )
        found.append([terms[name].item() for name in ("adversarial_gradient_ratio", "adversarial_weight")])
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_gradient_ratio_needs_the_last_layer() -> None:
    batch = Batch()
    logits = (batch.reconstruction.mean(),)
    with pytest.raises(ValueError, match=r"last_layer must be given for loss\.adversarial_weighting=adaptive or"):
        batch.loss(replace(CONFIG, adversarial_weight=0.1), fake_logits=logits, measure_ratio=True)
