"""Images as streams of rows: `LiteVAE.decode_rows` and `encode_rows`, in memory that does not depend on the height.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from litevae.checks import check_image, compute_dtype, in_dtype_of
from litevae.config import LiteVAEConfig
from litevae.models.decoder import Decoder
from litevae.models.encoder import AnyEncoder, build_encoder
from litevae.models.latent import DiagonalGaussian
from litevae.models.tiling import memory
from litevae.models.tiling.large_images import WAYS_OUT, plain, sees_all
from litevae.models.tiling.layers import Layers, check_modules, decoder_layers, encoder_layers, unbounded
from litevae.models.tiling.rows import stream_rows
from litevae_kernels import haar_idwt2d
from litevae_kernels.checks import FLOATING_DTYPES, check_int, wrong_kind, wrong_value

BUDGET = 2**28  # bytes, without another one


class RowStreams(nn.Module):
    """`LiteVAE`'s methods that work on rows from top to bottom."""

    encoder: AnyEncoder
    decoder: Decoder
    quant_conv: nn.Conv2d | None
    post_quant_conv: nn.Conv2d | None

    @property
    def architecture(self) -> LiteVAEConfig:
        raise NotImplementedError

    @apply_forward_hook
    def decode_rows(self, z: Tensor, rows: int | None = None, *, memory_budget: int | None = None) -> Iterator[Tensor]:
        """The image of a latent in strips of rows from top to bottom, without gradients.

        Together they are `decode(z).sample`, with the promise of `enable_tiling`; between two strips each layer keeps
        the rows that it has still to read, two for a 3x3 convolution, and nothing is computed twice. The memory grows
        with the width, not with the height.

        Args:
            z: latent [B, latent_channels, h, w] as of `decode`.
            rows: latents that go in at once. More are faster and take more memory.
            memory_budget: bytes that the activations of all B samples may take; the most rows that fit go in, at
                least 1 and at most 32. None, without `rows`: 256 MiB.

        Returns:
            An iterator of [B, out_channels, n, 8w] in channels_last; n is 0 for none of them and differs.

        Raises:
            TypeError, ValueError: as of `decode`; `rows` or `memory_budget` below 1, or both; a decoder with
                GroupNorm or attention, which sees the whole image.

        >>> model = LiteVAE.from_preset(
        ...     "S", block_out_channels=(8, 8, 8, 8), decoder_normalization="smc", mid_block_add_attention=False
        ... ).eval()
        >>> latent = torch.randn(1, 4, 40, 6)
        >>> strips = list(model.decode_rows(latent, rows=4))
        >>> torch.allclose(torch.cat(strips, dim=2), model.decode(latent).sample, atol=1e-5)
        True
        """
        decoder = plain(self.decoder)
        decoder.check(z)
        _check_sizes(rows, memory_budget)
        if reason := unbounded(decoder):
            raise sees_all("the decoder", reason, f"decode it whole, or: {WAYS_OUT}")
        check_modules(decoder)
        latent = in_dtype_of(self, z)
        rows = rows or self._rows(Decoder, latent, latent.shape[0], memory_budget)
        return self._decode_rows(decoder_layers(decoder, self.post_quant_conv), latent, rows)

    @torch.no_grad()
    def _decode_rows(self, layers: Layers, latent: Tensor, rows: int) -> Iterator[Tensor]:
        if latent.shape[0] == 0:
            yield from (image.sample for image in [self.decode(latent)])  # type: ignore[operator]
            return
        for strip in stream_rows(layers, latent.split(rows, dim=2), *latent.shape[-2:]):
            is_image = self.architecture.output_type == "image"
            yield strip if is_image else haar_idwt2d(strip, scaling="mean")

    @apply_forward_hook
    def encode_rows(
        self,
        x: Tensor | Iterable[Tensor],
        rows: int | None = None,
        *,
        height: int | None = None,
        memory_budget: int | None = None,
    ) -> Iterator[DiagonalGaussian]:
        """The posterior of an image in strips of rows from top to bottom, without gradients.

        `DiagonalGaussian(torch.cat([strip.parameters for strip in strips], dim=2))` is that of `encode`.

        Args:
            x: image [B, in_channels, H, W] as of `encode`; or its strips [B, in_channels, n, W] from top to bottom, n
                at least 1, which may be read one after the other.
            rows, memory_budget: as of `decode_rows`; for an image alone, strips go in as they come.
            height: H, where x is strips.

        Raises:
            TypeError, ValueError: as of `encode` and `decode_rows`; strips of another height together; an encoder with
                GroupNorm, attention or means over the image, which sees the whole of it.

        >>> model = LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), encoder_normalization="smc").eval()
        >>> image = torch.rand(1, 3, 64, 48) * 2 - 1
        >>> strips = [strip.mode() for strip in model.encode_rows(image, rows=2)]
        >>> torch.allclose(torch.cat(strips, dim=2), model.encode(image).latent_dist.mode(), atol=1e-5)
        True
        """
        encoder = plain(self.encoder)
        _check_sizes(rows, memory_budget)
        if reason := unbounded(encoder):
            raise sees_all("the encoder", reason, "encode it whole; encoder_normalization='smc' makes one that streams")
        check_modules(encoder)
        strips, batch, height, width = self._strips(x, rows, height, memory_budget)
        if batch == 0:
            return iter([self.encode(torch.cat(list(strips), dim=2)).latent_dist])  # type: ignore[operator]
        quant_conv = None if self.architecture.is_deterministic else self.quant_conv
        return self._encode_rows(encoder_layers(encoder, quant_conv), strips, height, width)

    @torch.no_grad()
    def _encode_rows(
        self, layers: Layers, strips: Iterator[Tensor], height: int, width: int
    ) -> Iterator[DiagonalGaussian]:
        is_deterministic = self.architecture.is_deterministic
        for moments in stream_rows(layers, (in_dtype_of(self, strip) for strip in strips), height, width):
            if is_deterministic and moments.dtype == torch.float32:
                moments = moments.to(compute_dtype(self))
            yield DiagonalGaussian(moments.contiguous(), deterministic=is_deterministic)

    def _strips(
        self, x: Tensor | Iterable[Tensor], rows: int | None, height: int | None, budget: int | None
    ) -> tuple[Iterator[Tensor], int, int, int]:
        """The strips of an image, its batch, height and width."""
        config = self.architecture
        if isinstance(x, Tensor):
            plain(self.encoder).check(x)
            rows = rows or self._rows(build_encoder, x, x.shape[0], budget)
            return iter(x.split(rows * config.downsampling, dim=2)), x.shape[0], x.shape[2], x.shape[3]
        if not isinstance(x, Iterable):
            raise wrong_kind("x", "be an image [B, in_channels, H, W] or strips of it", x)
        if height is None:
            raise wrong_value("height", "be given where x is strips", height, "pass the image's height")
        check_int("height", height, at_least=config.downsampling)
        if height % config.downsampling:
            raise wrong_value("height", f"be a multiple of {config.downsampling}", height)
        strips = iter(x)
        first = next(strips, None)
        check_image(first, config.in_channels, 1)
        assert first is not None
        if first.shape[3] % config.downsampling:
            raise wrong_value("strips", f"have a width that is a multiple of {config.downsampling}", first)
        checked = _checked(itertools.chain([first], strips), tuple(first.shape), height)
        return checked, first.shape[0], height, first.shape[3]

    def _rows(self, build: Any, x: Tensor, batch: int, budget: int | None) -> int:
        dtype = x.dtype if x.dtype in FLOATING_DTYPES else compute_dtype(self)
        return memory.most_rows(build, self.architecture, x.shape[-1], dtype, (budget or BUDGET) // max(batch, 1))


def _check_sizes(rows: int | None, memory_budget: int | None) -> None:
    for name, value in (("rows", rows), ("memory_budget", memory_budget)):
        if value is not None:
            check_int(name, value, at_least=1)
    if rows is not None and memory_budget is not None:
        raise wrong_value("memory_budget", "be left out where rows are given", memory_budget)


def _checked(strips: Iterable[Tensor], first: tuple[int, ...], height: int) -> Iterator[Tensor]:
    """Raise a ValueError where a strip does not fit to the first, or all of them have not `height` rows."""
    done = 0
    for strip in strips:
        check_image(strip, first[1], 1)
        if (strip.shape[0], strip.shape[3]) != (first[0], first[3]):
            raise wrong_value("strips", f"all have batch {first[0]} and width {first[3]}", strip)
        done += strip.shape[2]
        if done > height:
            break
        yield strip
    if done != height:
        raise wrong_value("strips", f"have {height} rows together, the height", done)
