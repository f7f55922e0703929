"""Do encode, decode and forward refuse what they cannot take, and name the way out?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

BAD_IMAGES = [
    (torch.zeros(3, 16, 16), ValueError, r"image must have 4 dimensions \[B, 3, H, W\].*image\[None\]"),
    (torch.zeros(16, 16), ValueError, r"image must have 4 dimensions"),
    (torch.zeros(1, 1, 16, 16), ValueError, r"have 3 channels.*image\.expand\(-1, 3, -1, -1\)"),
    (torch.zeros(1, 4, 16, 16), ValueError, r"have 3 channels.*image\[:, :3\]"),
    (torch.zeros(1, 16, 16, 3), ValueError, r"have 3 channels.*image\.permute\(0, 3, 1, 2\)"),
    (torch.zeros(1, 3, 16, 16, dtype=torch.int64), TypeError, r"torch\.int64.*image\.to\(torch\.uint8\)"),
    (torch.zeros(1, 3, 16, 16, dtype=torch.complex64), TypeError, "floating point"),
    (torch.zeros(1, 3, 20, 16), ValueError, r"multiples of 8.*\[1, 3, 20, 16\].*\(0, 0, 0, 4\).*litevae\.reconstruct"),
    (torch.zeros(1, 3, 16, 15), ValueError, r"multiples of 8.*\(0, 1, 0, 0\)"),
    (torch.zeros(1, 3, 0, 16), ValueError, "multiples of 8"),
    (np.zeros((1, 3, 16, 16), dtype=np.float32), TypeError, r"image must be a torch\.Tensor"),
    (None, TypeError, r"image must be a torch\.Tensor"),
]
BAD_LATENTS = [
    (torch.zeros(4, 2, 2), ValueError, r"latent must have 4 dimensions \[B, 4, h, w\].*latent\[None\]"),
    (torch.zeros(1, 8, 2, 2), ValueError, r"latent must have 4 channels.*DiagonalGaussian\(moments\)\.sample\(\)"),
    (torch.zeros(1, 3, 2, 2), ValueError, r"latent must have 4 channels"),
    (torch.zeros(1, 4, 2, 2, dtype=torch.int64), TypeError, r"latent must be floating point.*latent\.float\(\)"),
    (torch.zeros(1, 4, 0, 2), ValueError, "latent must have a height and a width of at least 1"),
    ([0.0], TypeError, r"latent must be a torch\.Tensor"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_IMAGES)
@pytest.mark.parametrize("method", ["encode", "forward", "encoder"])
def test_bad_images_are_refused(make_model, method, bad, error, message):
    with pytest.raises(error, match=message):
        getattr(make_model(), method)(bad)


@pytest.mark.parametrize(("bad", "error", "message"), BAD_LATENTS)
@pytest.mark.parametrize(("method", "use_quant_conv"), [("decode", False), ("decode", True), ("decoder", False)])
def test_bad_latents_are_refused(make_model, method, use_quant_conv, bad, error, message):
    with pytest.raises(error, match=message):
        getattr(make_model(use_quant_conv=use_quant_conv), method)(bad)


def test_an_encoding_is_refused_as_a_latent(make_model, image):
    model = make_model()
    with pytest.raises(TypeError, match=r"encode\(image\)\.latent_dist\.sample\(\)"):
        model.decode(model.encode(image))


def test_the_ways_out_lead_out(make_model):
    model = make_model()
    grayscale = torch.randint(0, 256, (1, 1, 20, 15), dtype=torch.uint8)
    image = (grayscale.float() / 127.5 - 1).expand(-1, 3, -1, -1)
    padded = torch.nn.functional.pad(image, (0, 1, 0, 4), mode="replicate")
    reconstruction = model(padded).sample[..., :20, :15]
    assert reconstruction.shape == image.shape
    assert reconstruction.isfinite().all()
    assert torch.equal(padded[..., :20, :15], image)
