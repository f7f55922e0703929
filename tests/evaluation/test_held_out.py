"""Are held-out images of any size measured as they are, and is the baseline what it says?"""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from litevae import LiteVAE
from litevae.data.images import to_tensor
from litevae.data.sources import BUILT_IN_HELD_OUT, PhotoSource, built_in_paths
from litevae.evaluation.held_out import HeldOutImage, bicubic_baseline, evaluate
from litevae.losses.perceptual import PerceptualConfig, build_perceptual


@pytest.fixture
def model() -> LiteVAE:
    torch.manual_seed(0)
    return LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), layers_per_block=1, dropout=0.5)


def held_out(*sizes: tuple[int, int]) -> list[HeldOutImage]:
    generator = torch.Generator().manual_seed(0)
    return [HeldOutImage(f"{h}x{w}", torch.rand(3, h, w, generator=generator) * 2 - 1) for h, w in sizes]


def test_any_size_is_padded_and_cropped_back(model: LiteVAE) -> None:
    evaluation = evaluate(model, held_out((17, 30), (16, 16), (40, 11)), torch.device("cpu"))
    for item in evaluation.images:
        assert item.reconstruction.shape == item.original.shape
        assert item.latent is not None
        expected = peak_signal_noise_ratio(
            item.original.double().numpy(), item.reconstruction.double().numpy(), data_range=2
        )
        assert item.psnr == pytest.approx(expected, rel=1e-9)
    assert [tuple(item.latent.shape) for item in evaluation.images if item.latent is not None] == [
        (4, 3, 4),
        (4, 2, 2),
        (4, 5, 2),
    ]
    assert evaluation.psnr == pytest.approx(np.mean([item.psnr for item in evaluation.images]))


def test_measured_is_the_model_s_forward_in_eval_mode(model: LiteVAE) -> None:
    """Dropout off, the posterior's mode, and the training mode back afterwards."""
    items = held_out((16, 24))
    model.train()
    first, second = (evaluate(model, items, torch.device("cpu")).images[0] for _ in range(2))
    assert model.training
    assert torch.equal(first.reconstruction, second.reconstruction)
    with torch.no_grad():
        expected = model.eval()(items[0].image[None]).sample[0].clamp(-1, 1)
    torch.testing.assert_close(first.reconstruction, expected, rtol=0, atol=0)


def test_only_forward_is_called(model: LiteVAE) -> None:
    """A wrapper such as DDP synchronises in forward alone; encode and decode on the inner model bypass it."""

    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor, sample_posterior: bool = False) -> object:
            return self.inner(x, sample_posterior=sample_posterior)

    items = held_out((16, 16))
    wrapped = evaluate(Wrapper(model), items, torch.device("cpu"))
    assert wrapped.psnr == evaluate(model, items, torch.device("cpu")).psnr


def test_baseline_on_the_photographs_equals_pillow_s_bicubic() -> None:
    """Antialiased down, bicubic up. Pillow's cubic has a = -0.5, torch's upsampling -0.75, which is 0.1 dB better."""
    from PIL import Image

    source = PhotoSource(built_in_paths(BUILT_IN_HELD_OUT))
    photos = [source.read(index).crop((0, 0, 296, 296)) for index in range(2)]
    baseline = bicubic_baseline([HeldOutImage("x", to_tensor(photo)) for photo in photos], torch.device("cpu"))
    for photo, measured in zip(photos, baseline.images, strict=True):
        small = photo.resize((37, 37), Image.Resampling.BICUBIC)
        large = np.asarray(small.resize((296, 296), Image.Resampling.BICUBIC))
        assert measured.psnr == pytest.approx(peak_signal_noise_ratio(np.asarray(photo), large), abs=0.2)


def test_baseline_keeps_a_constant_image_of_odd_size() -> None:
    baseline = bicubic_baseline([HeldOutImage("gray", torch.full((3, 19, 21), 0.3))], torch.device("cpu"))
    assert baseline.images[0].reconstruction.shape == (3, 19, 21)
    assert baseline.psnr > 100


def test_lpips_is_measured_on_the_pair_and_named(model: LiteVAE) -> None:
    perceptual = build_perceptual(PerceptualConfig(trunk="random"))
    evaluation = evaluate(model, held_out((16, 24), (24, 16)), torch.device("cpu"), perceptual)
    expected = [perceptual(item.reconstruction[None], item.original[None]).item() for item in evaluation.images]
    assert [item.lpips for item in evaluation.images] == pytest.approx(expected)
    line = evaluation.as_metrics(3, raw=evaluation)
    assert line["lpips_random_trunk"] == line["raw"]["lpips_random_trunk"] == pytest.approx(np.mean(expected))
    assert "lpips" not in line
