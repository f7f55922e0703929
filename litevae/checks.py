"""The checks of images, latents and pairs of images, and the precision in which losses and metrics compare them.

[image] -> DWT -> feature extraction -> aggregation -> [latent] -> decoder -> losses

The checks read shapes and dtypes alone, never values: no synchronisation, and nothing is left of them
under torch.compile.
"""

from typing import Any

import torch
from torch import Tensor

from litevae.pixels import to_float
from litevae_kernels.checks import FLOATING_DTYPES, wrong_kind, wrong_value


def check_image(image: object, channels: int, multiple: int) -> None:
    """TypeError or ValueError unless `image` is floating point or uint8 [B, channels, H, W], with sides that
    `multiple` divides."""
    shape = f"[B, {channels}, H, W]"
    if not isinstance(image, Tensor):
        way_out = "convert a PIL image with torchvision.transforms.functional.to_tensor(image)[None] * 2 - 1"
        raise wrong_kind("image", f"be a torch.Tensor {shape} in [-1, 1]", image, way_out)
    if image.dim() != 4:
        way_out = "add the batch dimension with image[None]" if image.dim() == 3 else ""
        raise wrong_value("image", f"have 4 dimensions {shape}", image, way_out)
    if not image.dtype.is_floating_point and image.dtype != torch.uint8:
        way_out = "pass 0..255 as image.to(torch.uint8)"
        raise wrong_kind("image", "be floating point in [-1, 1], or uint8", image, way_out)
    if image.shape[1] != channels:
        raise wrong_value("image", f"have {channels} channels {shape}", image, _channel_hint(image, channels))
    height, width = image.shape[2:]
    if height % multiple or width % multiple or height < 1 or width < 1:
        padding = (0, -width % multiple, 0, -height % multiple)
        raise wrong_value(
            "image",
            f"have a height and a width that are multiples of {multiple}",
            image,
            f"pad or crop it, e.g. torch.nn.functional.pad(image, {padding}, mode='replicate'), and crop the "
            "reconstruction; python -m litevae.reconstruct does both",
        )


def check_latent(latent: object, channels: int) -> None:
    """TypeError or ValueError unless `latent` is a floating-point tensor [B, channels, h, w]."""
    shape = f"[B, {channels}, h, w]"
    if not isinstance(latent, Tensor):
        way_out = "pass encode(image).latent_dist.sample() or .mode()"
        raise wrong_kind("latent", f"be a torch.Tensor {shape}", type(latent).__name__, way_out)
    if latent.dim() != 4:
        way_out = "add the batch dimension with latent[None]" if latent.dim() == 3 else ""
        raise wrong_value("latent", f"have 4 dimensions {shape}", latent, way_out)
    if not latent.dtype.is_floating_point:
        raise wrong_kind("latent", "be floating point", latent, "convert it with latent.float()")
    if latent.shape[1] != channels:
        is_moments = latent.shape[1] == 2 * channels
        way_out = "the encoder's moments become a latent by litevae.DiagonalGaussian(moments).sample()"
        raise wrong_value("latent", f"have {channels} channels {shape}", latent, way_out if is_moments else "")
    if latent.shape[2] < 1 or latent.shape[3] < 1:
        raise wrong_value("latent", "have a height and a width of at least 1", latent)


def check_same_shape(reconstruction: Tensor, image: Tensor, argument: str = "reconstruction") -> None:
    """Raise a ValueError for a pair that broadcasting would silently compare wrongly."""
    if reconstruction.shape != image.shape:
        expected, got = tuple(image.shape), tuple(reconstruction.shape)
        raise ValueError(f"{argument} must have the image's shape {expected}, got {got}")


def in_dtype_of(model: Any, x: Tensor) -> Tensor:
    """A floating-point x in the dtype that a diffusers model computes in, where torch would refuse another.

    As it is under autocast, and where parameters are quantized. Layerwise casting stores parameters in another dtype
    than it computes in; uint8 pixels, which an encoder converts to the stored one, are then converted here.
    """
    stored = next(model.parameters()).dtype
    if not isinstance(x, Tensor) or x.dtype == stored:
        return x
    dtype = compute_dtype(model)
    if x.dtype == torch.uint8 and stored != dtype:
        return to_float(x, dtype)
    if not x.dtype.is_floating_point or dtype not in FLOATING_DTYPES:
        return x
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return x if autocast and x.dtype != torch.float64 else x.to(dtype)  # autocast leaves float64 alone


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype that a diffusers model computes in, which is that of its parameters but for layerwise casting."""
    dtype: torch.dtype = model.dtype if _has_hooks(model) else next(model.parameters()).dtype
    return dtype  # model.dtype walks over all modules


def _has_hooks(model: Any) -> bool:
    """Whether diffusers wraps the module of the first parameter: to cast it, or to move it."""
    if torch.compiler.is_compiling():
        return False
    name, _ = next(model.named_parameters())
    return hasattr(model.get_submodule(name.rpartition(".")[0]), "_diffusers_hook")


def full_precision(x: Tensor) -> Tensor:
    """x in float32 if it is in half precision, where a mean over many elements would lose its last digits."""
    return x if x.dtype.itemsize >= 4 else x.float()


def _channel_hint(image: Tensor, channels: int) -> str:
    if image.shape[1] == 1:
        return f"expand a grayscale image with image.expand(-1, {channels}, -1, -1)"
    if image.shape[1] == channels + 1:
        return f"drop an alpha channel with image[:, :{channels}]"
    if image.shape[3] == channels:
        return "move the channels forward with image.permute(0, 3, 1, 2)"
    return ""


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that memory was too small: of a device, or of this machine, where PyTorch raises a
    RuntimeError of its CPU allocator."""
    is_of_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return is_of_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)
