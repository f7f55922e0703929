"""How much memory and time does a decode of many megapixels take, by rows and by tiles, with the file written?

latent -> [decoder -> PNG, strip by strip]

    python -m benchmarks.large_images                                     # all rows, minutes
    python -m benchmarks.large_images --only "rows, 4096x4096" --results out

A narrow decoder with SMC and without attention decodes a random latent in float32: by `decode_rows`, every strip
written to a PNG as it comes, and in tiles (`enable_tiling`), which make the whole image in memory. Every row runs in a
process of its own, whose peak of resident memory (getrusage) is compared with what is resident before the decode.
`--bits` decodes an image that fits whole, too, and says how far tiles and rows are from it.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import report
from benchmarks.harness.measure import MIB, clock
from benchmarks.harness.report import RESULTS, Column, Measured, Table
from litevae import LiteVAE
from litevae.data.strip_files import write_strips
from litevae.pixels import to_uint8
from litevae_kernels.files import check_folder

SIZES = ((4096, 4096), (4096, 16384), (16384, 4096))  # width, height
ROWS = {f"rows, {width}x{height}": (width, height, 0) for width, height in SIZES} | {
    "tiles of 64, 4096x4096": (4096, 4096, 64)
}
WIDTHS = (32, 32, 64, 64)
TABLE = Table(
    name="large_images",
    title="Decoding images of many megapixels",
    settings={"decoder": f"SMC, no attention, widths {WIDTHS}, two ResBlocks a resolution", "dtype": "float32"},
    columns=[
        Column("row", "decode, width x height"),
        Column("megapixels", "megapixels", ".0f"),
        Column("image_mib", "the image in float32, MiB", ".0f"),
        Column("peak_mib", "peak above the weights, MiB", ".0f"),
        Column("seconds", "s", ".0f"),
        Column("file_mb", "PNG, MB", ".0f"),
    ],
    order=list(ROWS),
    notes=[
        "Peak: of resident memory, less what is resident before the decode (weights, latent, libraries).",
        "By rows the PNG is written as the strips come, with the default budget of 256 MiB; the time has it. In tiles "
        "the image is made whole, and no file.",
    ],
)


def model() -> LiteVAE:
    torch.manual_seed(0)
    bounded: dict[str, Any] = {"decoder_normalization": "smc", "mid_block_add_attention": False}
    made = LiteVAE.from_preset("S", block_out_channels=WIDTHS, layers_per_block=1, **bounded)
    return made.optimize_for_inference()


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def peak_mib() -> float:
    """Of this program alone: ru_maxrss begins at what the process that started it had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024  # Linux counts KiB


def run(width: int, height: int, tile: int, file: Path) -> dict[str, float]:
    """The measured columns of a row; for a process of its own."""
    decoder, latent = model(), torch.randn(1, 4, height // 8, width // 8)
    before, start = resident_mib(), clock()
    if tile:
        decoder.enable_tiling(tile)
        decoder.decode(latent)
    else:

        def strips() -> Iterator[np.ndarray]:
            for strip in decoder.decode_rows(latent):
                yield np.ascontiguousarray(to_uint8(strip)[0].permute(1, 2, 0).numpy())

        write_strips(file, strips(), width, height)
    row = {"seconds": clock() - start, "peak_mib": peak_mib() - before}
    return row if tile else {**row, "file_mb": file.stat().st_size / 1e6}


@torch.no_grad()
def difference(side: int = 1024) -> dict[str, float]:
    """Largest distance of tiles and rows from a whole decode of side x side pixels, in units of its largest value."""
    decoder, latent = model(), torch.randn(1, 4, side // 8, side // 8)
    whole: Any = decoder.decode(latent)
    found = {"rows": torch.cat(list(decoder.decode_rows(latent)), dim=2)}
    for tile in (16, 64):
        decoder.enable_tiling(tile)
        tiled: Any = decoder.decode(latent)
        found[f"tiles of {tile}"] = tiled.sample
    return {name: ((x - whole.sample).abs().max() / whole.sample.abs().max()).item() for name, x in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every row in a process of its own, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_images", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=ROWS, help="one row")
    parser.add_argument("--size", type=int, nargs=3, metavar=("WIDTH", "HEIGHT", "TILE"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--bits", action="store_true", help="how far tiles and rows are from a whole decode of 1024x1024"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    arguments = parser.parse_args(argv)
    if arguments.bits:
        for name, distance in difference().items():
            print(f"{name}: {'the same bits' if distance == 0 else f'{distance:.1e}'}")
        return 0
    if arguments.size:
        with tempfile.TemporaryDirectory() as folder:
            width, height, tile = arguments.size
            print(json.dumps(run(width, height, tile, Path(folder, "image.png"))))
        return 0
    check_folder("--results", arguments.results)
    measured = Measured(TABLE)
    command = ["python", "-m", "benchmarks.large_images", *(sys.argv[1:] if argv is None else argv)]
    conditions = report.conditions(shlex.join(command))
    for name in [arguments.only] if arguments.only else ROWS:
        width, height, _ = ROWS[name]
        child = [sys.executable, "-m", "benchmarks.large_images", "--size", *map(str, ROWS[name])]
        row = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
        pixels = {"megapixels": width * height / 1e6, "image_mib": 3 * 4 * width * height / MIB}
        measured.rows[name] = {"row": name, **pixels, **row}
    document = report.document(measured, conditions)
    print(report.markdown(document))
    print(report.write(document, arguments.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
