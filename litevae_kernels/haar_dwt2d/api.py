"""The public functions of the Haar DWT: contract and checks.

[image -> DWT] -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from litevae_kernels import checks, dispatch
from litevae_kernels.haar_dwt2d import ops

MAX_LEVELS = 16
SCALINGS = ("orthonormal", "mean")
MEMORY_FORMATS = (torch.preserve_format, torch.contiguous_format, torch.channels_last)


def haar_dwt2d(
    image: Tensor,
    levels: int = 1,
    *,
    scaling: str = "orthonormal",
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Multi-level 2D Haar wavelet transform, all levels from one read of the image.

    The DWT of Section 4.1 and Appendix G ("symmetric" extension). For a 2x2 block a b / c d:
    L = (a+b+c+d)/2, H = (a+b-c-d)/2, V = (a-b+c-d)/2, D = (a-b-c+d)/2. L is the image of the next level.
    LiteVAE uses scaling="mean", in the encoder and in `LiteVAEOutput.wavelet`: compared with the default
    "orthonormal", every sub-band of level l is divided by 2^l.

    Args:
        image: [B, C, H, W], any strides, H and W at least 1. float64, float32, float16 or bfloat16 of any range, or
            uint8, where a pixel p stands for p / 127.5 - 1.
        levels: 1 to 16. At every level an odd side repeats its last row or column.
        scaling: "orthonormal" preserves the energy. "mean", the paper's, makes L the local mean.
        dtype: of the result. None takes the image's, or float32 for uint8.
        memory_format: of the result. torch.preserve_format takes the image's, channels_last if it is dense in that
            order, else NCHW. torch.contiguous_format and torch.channels_last convert on the way, without a copy before.
        backend: "triton", "cuda", "cpu" or "reference"; None takes `LITEVAE_KERNELS_BACKEND` or the fastest one.

    Returns:
        One packed tensor a level, finest first: [B, 4C, ceil(H/2^l), ceil(W/2^l)], sub-bands L H V D band-major
        on the channel axis, contiguous in the memory format that was asked for.

    Arithmetic is float32 (float64 if the image or the result is) with one rounding at the end. Differentiable any
    number of times (uint8 has no gradient); the image's gradient has the memory format of the sub-bands' gradients.
    Deterministic. Autocast does not change the dtype. Inside torch.func
    (grad, vmap, jvp, ...) and with forward-mode tangents the reference runs, in NCHW.

    Raises:
        TypeError, ValueError: an argument outside the above. RuntimeError: a named backend cannot run here.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> haar_dwt2d(image)[0].flatten().tolist()
        [5.0, -2.0, -1.0, 0.0]
    """
    _check_image_dtype(image)
    checks.check_rank("image", image, "[B, C, H, W]", "add a batch axis with image[None]")
    if image.shape[-2] < 1 or image.shape[-1] < 1:
        raise checks.wrong_value("image", "have H and W of at least 1", image)
    checks.check_int("levels", levels, 1, MAX_LEVELS)
    checks.check_choice("scaling", scaling, SCALINGS)
    if dtype is not None:
        checks.check_dtype("dtype", dtype)
    if dtype is None:
        dtype = torch.float32 if image.dtype == torch.uint8 else image.dtype
    _check_memory_format(memory_format)
    factor = 0.5 if scaling == "orthonormal" else 0.25
    return tuple(dispatch.run(ops.haar_dwt2d, backend, image, levels, factor, dtype, memory_format))


def haar_idwt2d(
    pyramid: Tensor | Sequence[Tensor],
    *,
    scaling: str = "orthonormal",
    size: tuple[int, int] | None = None,
    backend: str | None = None,
) -> Tensor:
    """Inverse of `haar_dwt2d`: reads L of the coarsest level and H, V, D of all.

    Args:
        pyramid: what `haar_dwt2d` returns (finest first), or one packed tensor [B, 4C, h, w] for a single level.
            One floating dtype and device; each level has half the sides of the one before, rounded up.
        scaling: the one the pyramid was made with.
        size: (H, W) of the image. None gives twice the sides of the finest level. It must be given for an image
            with an odd side, because sides of 2h - 1 and 2h both have sub-bands of side h.
        backend: as in `haar_dwt2d`.

    Returns:
        The image [B, C, H, W] in the dtype and memory format of the finest level.

    Where the next finer level has an odd side, the reconstructed L drops its last row or column. Arithmetic,
    derivatives and errors are as in `haar_dwt2d`.

    Example:
        >>> image = torch.randn(1, 3, 5, 6)
        >>> torch.allclose(haar_idwt2d(haar_dwt2d(image, 2), size=(5, 6)), image, atol=1e-6)
        True
    """
    levels = [pyramid] if isinstance(pyramid, Tensor) else pyramid
    _check_pyramid(levels)
    checks.check_choice("scaling", scaling, SCALINGS)
    height, width = _image_size(levels[0], size)
    factor = 0.5 if scaling == "orthonormal" else 1.0
    return dispatch.run(ops.haar_idwt2d, backend, list(levels), height, width, factor)


def _check_image_dtype(image: Any) -> None:
    if not isinstance(image, Tensor):
        raise checks.wrong_kind("image", "be a torch.Tensor", image)
    if image.dtype != torch.uint8 and image.dtype not in checks.FLOATING_DTYPES:
        way_out = "convert pixels from 0 to 255 with .to(torch.uint8), other values with .float()"
        raise checks.wrong_kind("image", "have dtype float64, float32, float16, bfloat16 or uint8", image, way_out)


def _check_memory_format(memory_format: Any) -> None:
    if not isinstance(memory_format, torch.memory_format):
        raise checks.wrong_kind("memory_format", "be a torch.memory_format", memory_format)
    if memory_format not in MEMORY_FORMATS:
        raise checks.wrong_value("memory_format", f"be one of {', '.join(map(str, MEMORY_FORMATS))}", memory_format)


def _check_pyramid(pyramid: Any) -> None:
    if not isinstance(pyramid, (list, tuple)):
        raise checks.wrong_kind("pyramid", "be a tensor or a sequence of tensors", pyramid)
    if not 1 <= len(pyramid) <= MAX_LEVELS:
        raise checks.wrong_value("pyramid", f"have 1 to {MAX_LEVELS} levels", len(pyramid))
    for index, packed in enumerate(pyramid):
        name = f"pyramid[{index}]"
        checks.check_floating_tensor(name, packed)
        checks.check_rank(name, packed, "[B, 4C, h, w]")
        if packed.shape[1] % 4 or packed.shape[-2] < 1 or packed.shape[-1] < 1:
            raise checks.wrong_value(name, "have shape [B, 4C, h, w] with h and w at least 1", packed)
        if index == 0:
            continue
        finer = pyramid[index - 1]
        expected = (*finer.shape[:2], (finer.shape[-2] + 1) // 2, (finer.shape[-1] + 1) // 2)
        if packed.shape != expected:
            way_out = "levels go from fine to coarse, as haar_dwt2d returns them"
            raise checks.wrong_value(
                name, f"have shape {list(expected)}, half of pyramid[{index - 1}]", packed, way_out
            )
        if packed.dtype != finer.dtype:
            raise checks.wrong_kind(name, f"have the dtype of pyramid[0], {finer.dtype}", packed)
        checks.check_same_device(name, packed, "pyramid[0]", finer.device)


def _image_size(finest: Tensor, size: Any) -> tuple[int, int]:
    full_height, full_width = 2 * finest.shape[-2], 2 * finest.shape[-1]
    if size is None:
        return full_height, full_width
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise checks.wrong_kind("size", "be a pair (H, W)", size)
    for axis, side, full in (("size[0]", size[0], full_height), ("size[1]", size[1], full_width)):
        checks.check_int(axis, side, 1)
        if side not in (full - 1, full):
            raise checks.wrong_value(axis, f"be {full - 1} or {full}, twice the side of pyramid[0]", side)
    return size[0], size[1]
