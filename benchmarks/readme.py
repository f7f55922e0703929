"""Recorded results in the README: tables between two comments, from benchmarks/results alone.

`python -m benchmarks.readme` writes them, and the figures beside the results (figures.py). A block stands between
`<!-- results: NAME -->` and `<!-- /results -->`; it has one table for each device that NAME has results of.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.harness.report import RESULTS, Column, cell
from litevae_kernels.files import write_text

README = Path(__file__).parents[1] / "README.md"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """One column: the key of a row's value, and that of the paper's, put in brackets.

    Heading and format are those of the stored table, unless the README has its own.
    """

    key: str
    heading: str = ""
    spec: str = ""
    paper: str = ""

    def column(self, document: Mapping[str, Any]) -> Column:
        stored = next(column for column in document["columns"] if column["key"] == self.key.rpartition(".")[2])
        heading = (self.heading or stored["heading"]) + (" (paper)" if self.paper else "")
        return Column(self.key, heading, self.spec or stored["spec"])

    def of(self, row: Row, spec: str) -> str:
        brackets = f" ({cell(row[self.paper], spec)})" if self.paper and row.get(self.paper) is not None else ""
        return cell(row.get(self.key), spec) + brackets


@dataclass(frozen=True)
class Block:
    """A table of the README: which rows of a table of results it shows, under which names, and which columns.

    `rows`: labels of the results by their names here; all rows if None. `merged`: brings the rows into another form.
    """

    table: str
    heading: str
    columns: Sequence[Shown]
    rows: Mapping[str, str] | None = None
    merged: Callable[[Sequence[Row]], list[dict[str, Any]]] | None = None

    def markdown(self, document: Mapping[str, Any]) -> str:
        rows = self.merged(document["rows"]) if self.merged else document["rows"]
        if self.rows is not None:
            by_label = {row["row"]: row for row in rows}
            rows = [{**by_label[label], "row": name} for name, label in self.rows.items() if label in by_label]
        columns = [shown.column(document) for shown in self.columns]
        lines = [
            f"| {self.heading} | {' | '.join(column.heading for column in columns)} |",
            f"|---|{'--:|' * len(columns)}",
        ]
        for row in rows:
            cells = [shown.of(row, column.spec) for shown, column in zip(self.columns, columns, strict=True)]
            lines.append(f"| {row['row']} | {' | '.join(cells)} |")
        return "\n".join([*lines, "", conditions(document)])


def conditions(document: Mapping[str, Any]) -> str:
    """What the numbers above it depend on, in one line."""
    of = document["conditions"]
    settings = [f"{name} {value}" for name, value in document["settings"].items() if name != "mode"]
    shown = ("python", "torch", "diffusers")
    versions = [version for version in of["versions"].split(", ") if version.split()[0] in shown]
    commit = "commit " + re.sub("^(.{7})[0-9a-f]*", r"\1", of["commit"])
    parts = [*settings, of["machine"], *versions, commit, of["date"][:10]]
    return f"`{of['command']}`; {'; '.join(parts)}."


def by_model(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows "NAME, DTYPE" to one row for each name, with keys "DTYPE.key"."""
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        name, _, dtype = row["row"].rpartition(", ")
        is_ours = name.startswith("LiteVAE") and "paper" not in name and "plain" not in name
        bold = f"**{name}**" if is_ours else name
        merged.setdefault(bold, {"row": bold}).update({f"{dtype}.{key}": value for key, value in row.items()})
    return list(merged.values())


def shown(*keys: str) -> list[Shown]:
    """Columns as they are stored."""
    return list(map(Shown, keys))


GROUP_NORM_CASES = [
    f"{case}, {layout}"
    for case in (
        "32 x 128 x 128, float32",
        "32 x 128 x 128, bfloat16",
        "96 x 64 x 64, float32",
        "192 x 32 x 32, float32",
        "96 + skip 96 x 64 x 64, float32",
    )
    for layout in ("NCHW", "channels_last")
]
BACKENDS = {"cpu": "", "triton": ", Triton", "cuda": ", CUDA C++"}

BLOCKS = {
    "table3": Block(
        "table3_encoders",
        "encoder",
        [
            Shown("float32.parameters_m", spec=".2f", paper="float32.paper_parameters_m"),
            Shown("float32.gmac", spec=".1f"),
            Shown("float32.live_mb", "memory, MB"),
            Shown("float32.live_to_vae", paper="float32.paper_mb_to_vae"),
            Shown("float32.img_per_s", "float32, img/s", ".3g"),
            Shown("float32.speed_to_vae", paper="float32.paper_speed_to_vae"),
            Shown("bfloat16.img_per_s", "bfloat16, img/s", ".3g"),
            Shown("bfloat16.speed_to_vae"),
        ],
        merged=by_model,
    ),
    "memory": Block(
        "memory",
        "encoder, live tensors at batch 32",
        shown("float32", "float32_to_vae", "bfloat16", "bfloat16_to_vae"),
        {
            "VAE": "VAE",
            "LiteVAE-B as in the paper": "LiteVAE-B as in the paper",
            "**LiteVAE-B**": "LiteVAE-B",
            "**LiteVAE-B**, `enable_slicing(8)`": "LiteVAE-B, slices of 8",
            "**LiteVAE-S**": "LiteVAE-S",
            "**LiteVAE-S**, `enable_slicing(8)`": "LiteVAE-S, slices of 8",
        },
    ),
    "decoders": Block(
        "decoders",
        "decoder",
        [
            Shown("float32.parameters_m", spec=".2f"),
            Shown("float32.img_per_s", "float32, img/s", ".3g"),
            Shown("float32.speed_to_sd"),
            Shown("bfloat16.img_per_s", "bfloat16, img/s", ".3g"),
            Shown("bfloat16.speed_to_sd"),
        ],
        merged=by_model,
    ),
    "training_step": Block(
        "training_step",
        "an update of training",
        [
            Shown("float32.img_per_s", "float32, img/s", ".3g"),
            *shown("float32.speed_to_plain", "float32.speed_to_sd"),
            Shown("float32.peak_to_plain", "peak memory / plain loop's"),
            Shown("bfloat16 autocast.img_per_s", "bfloat16 autocast, img/s", ".3g"),
            *shown(*(f"bfloat16 autocast.speed_to_{other}" for other in ("plain", "plain_float32", "sd"))),
            Shown("bfloat16 autocast.peak_to_plain_float32", "peak memory / plain loop's in float32"),
            Shown("bfloat16 autocast.speed_of_half", "img/s at half the side / this"),
        ],
        merged=by_model,
    ),
    "comparison": Block(
        "comparison",
        "after the same steps",
        shown("encoder_m", "decoder_m", "psnr", "ssim", "lpips_random_trunk", "images_per_second", "speed_to_sd"),
    ),
    "diffusion_step": Block(
        "diffusion_step",
        "latents",
        [Shown("encoder_gmac", spec=".1f"), *shown("network_gmac", "mac_share", "seconds", "time_share", "live_mb")],
    ),
    "haar_dwt2d": Block(
        "haar_dwt2d",
        "three-level DWT",
        [Shown("time_ms", "ms", ".2f"), Shown("to_copy", "time / copy of the image"), Shown("to_ours")],
        {
            "copy of the image": "copy of the image",
            **{
                f"**`{operator}`**{name}": f"{operator}, {backend}"
                for backend, name in BACKENDS.items()
                for operator in ("haar_dwt2d", "haar_idwt2d")
            },
            "slicing, torch.compile": "slicing, torch.compile",
            "slicing, eager": "slicing, eager",
            "`ptwt.wavedec2`, once": "ptwt.wavedec2, once",
            "the paper's way, `ptwt.wavedec2` three times": "the paper's way: ptwt.wavedec2, 3 times",
        },
    ),
    "group_norm_silu": Block(
        "group_norm_silu",
        "GroupNorm+SiLU, forward",
        [
            Shown("time_ms", "ms", ".2f"),
            Shown("share_of_copy", "share of a copy's GB/s, %"),
            Shown("eager_to_row", "eager / ours"),
            Shown("compiled_to_row", "torch.compile / ours"),
        ],
        {
            f"{case}{name}": f"forward, {case}, {backend}"
            for case in GROUP_NORM_CASES
            for backend, name in BACKENDS.items()
        },
    ),
    "smc_conv2d": Block(
        "smc_conv2d",
        "SMC, forward + backward",
        [Shown("time_ms", "ms", ".0f"), Shown("to_conv2d"), Shown("extra_memory_mib", spec=".0f")],
        {
            "bare `conv2d`": "conv2d",
            **{f"**`smc_conv2d`**{name}": f"smc_conv2d, {backend}" for backend, name in BACKENDS.items()},
            "the formula, torch.compile": "formula, torch.compile",
            "the paper's way, one weight a sample": "the paper's way: per-sample grouped conv2d",
        },
    ),
}


def filled(readme: str, folder: Path = RESULTS) -> str:
    """`readme` with every block as the results in `folder` have it."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"README.md must name one of {', '.join(BLOCKS)} in <!-- results: ... -->, got {name!r}")
        paths = sorted(folder.glob(f"{BLOCKS[name].table}-*.json"), key=lambda path: path.stem.endswith("-cpu"))
        documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        tables = [BLOCKS[name].markdown(document) for document in documents]
        return "\n\n".join([f"<!-- results: {name} -->", *tables, "<!-- /results -->"])

    return re.sub(r"<!-- results: (?P<name>\w+) -->.*?<!-- /results -->", block, readme, flags=re.DOTALL)


if __name__ == "__main__":
    write_text(README, filled(README.read_text(encoding="utf-8")))
    print(f"wrote {README}", *figures.write(RESULTS), sep="\nwrote ")
