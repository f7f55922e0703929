"""What does a trained LiteVAE make of my photo? `python -m litevae.reconstruct photo.jpg --model runs/quickstart`

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> figures
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.data.images import UnreadableImageError, read_image, to_tensor
from litevae.evaluation.metrics import psnr
from litevae_kernels.files import unused

LARGE_PIXELS = 4_000_000


def pad_to_multiple(x: Tensor, multiple: int = 8) -> Tensor:
    """Repeat the last row and column of [B, C, H, W] until `multiple` divides both sides."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


@torch.no_grad()
def reconstruct(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Encode and decode one image of any size, from the mode of its posterior.

    Args:
        model: a LiteVAE, in eval mode; called through its forward.
        image: float32 [3, H, W] in [-1, 1], on the model's device.

    Returns:
        The reconstruction [3, H, W], float32, clamped to [-1, 1], and the latent [C, ceil(H/8), ceil(W/8)].
    """
    height, width = image.shape[-2:]
    output = model(pad_to_multiple(image[None]), sample_posterior=False)
    return output.sample[0, :, :height, :width].float().clamp(-1, 1), output.latent[0].float()


def load_model(path: Path) -> nn.Module:
    """The model in a run folder or a save_pretrained folder; of an unfinished run, its newest checkpoint.

    Of a run with averaged weights those are taken. SD-VAE baselines load as well.

    Raises:
        FileNotFoundError: neither is there.
        ValueError, OSError, ConfigError, CheckpointError: it is there and cannot be loaded.
    """
    from litevae.runs.checkpoint import load_newest_checkpoint, load_state
    from litevae.runs.run_folder import RunFolder
    from litevae.training.config import RunConfig
    from litevae.training.networks import build_autoencoder

    path = path.expanduser()
    folder = RunFolder(path)
    for candidate in (path, folder.model):
        if (candidate / "config.json").is_file():
            return _load_saved(candidate).eval()
    if folder.config.is_file():
        model = build_autoencoder(folder.read_config(RunConfig).model)
        checkpoint = load_newest_checkpoint(folder.checkpoints)
        load_state(model, checkpoint["ema"] or checkpoint["model"], str(folder.checkpoints))
        print(f"{path} is not finished: using its checkpoint of step {checkpoint['step']}", file=sys.stderr)
        return model.eval()
    what = "is neither a run nor a saved model (no config.yaml, no config.json)" if path.exists() else "does not exist"
    raise FileNotFoundError(f"--model must name a run or a model folder, got {path}, which {what}")


def _load_saved(folder: Path) -> nn.Module:
    from litevae import LiteVAE
    from litevae.models.baseline import StableDiffusionVAE

    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError):
        name = None  # LiteVAE says what is wrong with it
    kind = StableDiffusionVAE if name == "AutoencoderKL" else LiteVAE
    return kind.from_pretrained(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for a failure, 2 for a wrong argument."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except (torch.OutOfMemoryError, MemoryError):
        print("error: the photo is too large for this machine's memory; try --max-side 1024", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    from litevae.runs.checkpoint import CheckpointError
    from litevae.runs.config import ConfigError

    photo: Path = arguments.photo
    output: Path = arguments.output or Path(f"{photo.stem}-reconstruction.png")
    if arguments.output is None:
        output = unused(output)
    elif output.exists() and not arguments.overwrite:
        print(f"error: {output} exists; choose another --output or add --overwrite", file=sys.stderr)
        return 2
    if not output.absolute().parent.is_dir():
        print(f"error: the folder of --output does not exist: {output.parent}", file=sys.stderr)
        return 2
    try:
        image = read_image(photo)
        model = load_model(arguments.model)
    except (UnreadableImageError, OSError, ValueError, ConfigError, CheckpointError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if arguments.max_side and max(image.size) > arguments.max_side:
        image.thumbnail((arguments.max_side, arguments.max_side))
    if image.width * image.height > LARGE_PIXELS:
        print(
            f"warning: {image.width}x{image.height} pixels need much memory and time (attention in the decoder sees "
            "the whole photo); --max-side 2048 reconstructs a smaller copy",
            file=sys.stderr,
        )
    _write(model, to_tensor(image), output)
    return 0


def _write(model: nn.Module, original: Tensor, output: Path) -> None:
    from litevae.evaluation.figures import side_by_side

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reconstruction, latent = (x.cpu() for x in reconstruct(model.to(device), original.to(device)))
    decibels = psnr(reconstruction[None], original[None]).item()
    height, width = original.shape[-2:]
    shape = "x".join(map(str, latent.shape))
    captions = (f"original {width}x{height}", f"reconstruction {decibels:.2f} dB", f"latent {shape}")
    side_by_side(original, reconstruction, latent, captions).save(output)
    print(f"PSNR {decibels:.2f} dB, {width}x{height} pixels, latent {shape}: {output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m litevae.reconstruct",
        description="Write original | reconstruction | latent of a photo of any size, and print the PSNR.",
        epilog="example: python -m litevae.reconstruct photo.jpg --model runs/quickstart",
    )
    parser.add_argument("photo", type=Path, help="an image in any format that Pillow reads")
    parser.add_argument("--model", type=Path, required=True, help="a run folder, or a folder made by save_pretrained")
    parser.add_argument(
        "--output", type=Path, help="PNG to write (default: <photo>-reconstruction.png here, numbered if that exists)"
    )
    parser.add_argument("--overwrite", action="store_true", help="let --output replace an existing file")
    parser.add_argument(
        "--max-side", type=_positive, metavar="N", help="shrink a photo whose longer side exceeds N pixels"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
