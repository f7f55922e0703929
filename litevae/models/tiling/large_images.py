"""What `LiteVAE` does with images that are too large for memory: tiles, and streams of rows.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn

from litevae.checks import compute_dtype
from litevae.config import LiteVAEConfig
from litevae.models.decoder import Decoder
from litevae.models.encoder import AnyEncoder
from litevae.models.latent import DiagonalGaussian
from litevae.models.tiling import memory
from litevae.models.tiling.blending import AutoencoderKL, by_blended_tiles
from litevae.models.tiling.layers import check_modules, decoder_layers, encoder_layers, unbounded
from litevae.models.tiling.rows import by_tiles
from litevae.models.tiling.statistics import by_whole_statistics
from litevae_kernels.checks import FLOATING_DTYPES, check_choice, check_flag, check_int, check_number, wrong_value

Statistics = Literal["exact"]
WAYS_OUT = (
    "enable_tiling(statistics='exact') gathers the statistics over all tiles, for several times the arithmetic; "
    "enable_tiling(blend=True) blends overlapping tiles as diffusers does, which is not exact"
)


@dataclass(frozen=True)
class Tiling:
    """How `enable_tiling` was asked to work.

    side: of a tile, in latents; None: what fits into `memory_budget` bytes. The others as its arguments.
    """

    side: int | None = 64
    memory_budget: int | None = None
    blend: bool = False
    statistics: Statistics | None = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        for name, value in (("tile_size", self.side), ("memory_budget", self.memory_budget)):
            if value is not None:
                check_int(name, value, at_least=1)
        check_flag("blend", self.blend)
        check_number("tile_overlap_factor", self.overlap, at_least=0, below=1)
        if self.statistics is not None:
            check_choice("statistics", self.statistics, ("exact",))
            if self.blend:
                raise wrong_value("blend", "be False where statistics are exact", self.blend)


class LargeImages(nn.Module):
    """`LiteVAE`'s methods for images that are too large for memory."""

    encoder: AnyEncoder
    decoder: Decoder
    tiling: Tiling | None = None
    _tiling = Tiling()  # as it was last asked for: `tiling` while it is enabled

    @property
    def architecture(self) -> LiteVAEConfig:
        raise NotImplementedError

    def enable_tiling(
        self,
        tile_size: int | None = None,
        *,
        memory_budget: int | None = None,
        blend: bool = False,
        statistics: Statistics | None = None,
    ) -> None:
        """Encode and decode in tiles, in less memory, until `disable_tiling`.

        The result is that of the whole where an output pixel sees a part of the input alone: an SMC decoder, or one
        without normalization, without attention (`decoder_normalization="smc"`, `mid_block_add_attention=False`), and
        an encoder of UNets with `encoder_normalization="smc"` or "none", or without parameters. Each tile is computed
        from all that it sees, so every pixel is the same sum: on a CPU in float32, without gradients, bit for bit as
        far as the CPU's library adds in an order that does not depend on the image's size. Tiles of 64 latents take at
        most 1.11 times the arithmetic, of 128 1.06 times: what two tiles beside each other both need is computed twice,
        what one above the other need is kept. The layers are called one by one: parts that torch.compile or a CUDA
        graph runs are run without it.

        Other decoders need one of the two last arguments. Other encoders work on the whole image, as without tiles,
        unless `blend` is named.

        Args:
            tile_size: the side of a tile, in latents (64; `tile_latent_min_size` keeps it). Smaller images are whole.
            memory_budget: bytes that the activations may take without gradients, instead of a size: as many whole
                samples at once as fit or, where none does, one at a time in the largest tiles that fit, of at least 8
                latents. Parameters, the input, twice the result and what exact statistics keep come on top.
            blend: tiles that share a quarter of their side (`tile_overlap_factor`) and are faded into each other, as in
                diffusers. Not exact: each tile has its own mean and variance, and seams and shifts of colour may show.
            statistics: "exact" decodes with GroupNorm's mean and variance of the whole image, gathered over the tiles,
                and attention over the whole latent: equal up to rounding. An experiment: of Stable Diffusion's decoder
                it takes 5 times the arithmetic (8 with sub-bands), and a quarter of the memory for 256 x 256
                latents, since attention and the maps before each upsampling are whole.

        Raises:
            TypeError, ValueError: an argument of the wrong kind or value; both a size and a budget; a decoder that
                sees the whole image without `blend` or `statistics`.

        >>> model = LiteVAE.from_preset(
        ...     "S", block_out_channels=(8, 8, 8, 8), decoder_normalization="smc", mid_block_add_attention=False
        ... ).eval()
        >>> latent = torch.randn(1, 4, 20, 24)
        >>> whole = model.decode(latent).sample
        >>> model.enable_tiling(tile_size=8)
        >>> torch.allclose(model.decode(latent).sample, whole, atol=1e-5)
        True
        """
        if tile_size is not None and memory_budget is not None:
            rule = "be left out where tile_size is given: one of them says how large a tile is"
            raise wrong_value("memory_budget", rule, memory_budget)
        side = tile_size if tile_size is not None or memory_budget is not None else self._tiling.side or 64
        tiling = Tiling(side, memory_budget, blend, statistics, self._tiling.overlap)
        check_decoder(self.decoder, tiling)
        self.tiling = self._tiling = tiling

    def disable_tiling(self) -> None:
        """Encode and decode whole images again."""
        self.tiling = None

    @property
    def use_tiling(self) -> bool:
        """Whether tiling is enabled; may be set, as of AutoencoderKL, to True for what `enable_tiling` last said."""
        return self.tiling is not None

    @use_tiling.setter
    def use_tiling(self, enabled: bool) -> None:
        if enabled:
            check_decoder(self.decoder, self._tiling)
            self.tiling = self._tiling
        else:
            self.disable_tiling()

    @property
    def tile_latent_min_size(self) -> int:
        """The side of a tile in latents; may be set, as of AutoencoderKL. A larger latent is tiled."""
        return self._tiling.side or 64

    @tile_latent_min_size.setter
    def tile_latent_min_size(self, side: int) -> None:
        self._set_tiling(side=side, memory_budget=None)

    @property
    def tile_sample_min_size(self) -> int:
        """The same in pixels."""
        return self.tile_latent_min_size * self.architecture.downsampling

    @tile_sample_min_size.setter
    def tile_sample_min_size(self, side: int) -> None:
        multiple = self.architecture.downsampling
        check_int("tile_sample_min_size", side, at_least=multiple)
        if side % multiple:
            raise wrong_value("tile_sample_min_size", f"be a multiple of {multiple}", side)
        self.tile_latent_min_size = side // multiple

    @property
    def tile_overlap_factor(self) -> float:
        """The share of a tile that the next one has too, where tiles are blended; may be set."""
        return self._tiling.overlap

    @tile_overlap_factor.setter
    def tile_overlap_factor(self, overlap: float) -> None:
        self._set_tiling(overlap=overlap)

    def _set_tiling(self, **changes: Any) -> None:
        self._tiling = dataclasses.replace(self._tiling, **changes)
        self.tiling = self.tiling and self._tiling

    blend_v = AutoencoderKL.blend_v
    blend_h = AutoencoderKL.blend_h

    def tiled_decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """`decode` as if tiling were enabled."""
        with self._tiling_enabled():
            result: DecoderOutput | tuple[Tensor] = cast(Any, self).decode(z, return_dict)
        return result

    def tiled_encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussian]:
        """`encode` as if tiling were enabled.

        Raises:
            ValueError: an encoder that sees the whole image, unless `enable_tiling(blend=True)` was called.
        """
        reason = unbounded(plain(self.encoder))
        if reason and not self._tiling.blend:
            raise sees_all("the encoder", reason, "encode a whole image, or slices of a batch after enable_slicing()")
        with self._tiling_enabled():
            result: AutoencoderKLOutput | tuple[DiagonalGaussian] = cast(Any, self).encode(x, return_dict)
        return result

    @contextmanager
    def _tiling_enabled(self) -> Iterator[None]:
        before = self.tiling
        self.use_tiling = True
        try:
            yield
        finally:
            self.tiling = before

    @torch.compiler.disable
    def _tiled(self, part: AnyEncoder | Decoder, build: memory.Build, batch: Tensor) -> Tensor | None:
        """part(batch) in tiles; None: it is to be whole."""
        tiling, network = self.tiling, plain(part)
        network.check(batch)
        if tiling is None or batch.shape[0] == 0:
            return None
        decodes, reason = isinstance(network, Decoder), unbounded(network)
        if isinstance(network, Decoder):
            check_decoder(network, tiling)
        if reason and not tiling.blend and not (decodes and tiling.statistics):
            return None
        side = self._tile_side(tiling, build, batch, exact=not (reason and tiling.blend))
        pixels = 1 if decodes else self.architecture.downsampling
        if side is None or max(batch.shape[-2:]) <= side * pixels:
            return None
        if reason and tiling.blend:
            return by_blended_tiles(part, batch, side, tiling.overlap, pixels)
        check_modules(network)
        if isinstance(network, Decoder):
            return (
                by_whole_statistics(network, batch, side) if reason else by_tiles(decoder_layers(network), batch, side)
            )
        return by_tiles(encoder_layers(network), batch, side)

    def _tile_side(self, tiling: Tiling, build: memory.Build, batch: Tensor, exact: bool) -> int | None:
        """In latents; None: the whole fits into the budget."""
        if tiling.memory_budget is None:
            return tiling.side
        config, budget = self.architecture, tiling.memory_budget // batch.shape[0]
        dtype = batch.dtype if batch.dtype in FLOATING_DTYPES else compute_dtype(self)
        if memory.bytes_per_sample(build, config, *batch.shape[-2:], dtype) <= budget:
            return None
        return memory.largest_tile(build, config, dtype, budget, exact)


def plain(part: Any) -> Any:
    """A part without the wrapper of torch.compile."""
    return getattr(part, "_orig_mod", part)


def check_decoder(decoder: Any, tiling: Tiling) -> None:
    """Raise a ValueError for a decoder that sees the whole image, unless `tiling` says what to do about it."""
    reason = unbounded(plain(decoder))
    if reason and not (tiling.blend or tiling.statistics):
        raise sees_all("the decoder", reason, WAYS_OUT)


def sees_all(part: str, reason: str, way_out: str) -> ValueError:
    return ValueError(f"{part} must see a bounded part of the image for exact tiles or rows, but {reason}; {way_out}")
