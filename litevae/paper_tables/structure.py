"""What is a table, a row and a figure of the paper, and where does a row's number come from here?"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """What a row's model was trained and measured on; None: the paper does not say, or it varies from row to row."""

    dataset: str | None = None
    side: int | None = None
    """Of the square images it is measured on, in pixels."""
    latent_channels: int | None = None
    steps: int | None = None
    """Of its whole training."""


@dataclass(frozen=True)
class Column:
    """`key`: as results.json calls what is measured, None where nothing here measures it; `spec`: as in format()."""

    heading: str
    key: str | None = None
    spec: str = ".2f"


@dataclass(frozen=True)
class Row:
    """A printed row, and one of: `train`, `same_as`, `command`, or `missing`, the reason why there is none of them.

    A run for a row is called by the row's id (`litevae/paper_tables/commands.py`).
    """

    id: str
    label: str
    printed: str
    """Its values, digit by digit as the paper has them, with " | " between columns."""
    train: Sequence[str] = ()
    """Recipe and overrides of `python -m litevae.train`; of several runs each starts from the one before."""
    same_as: str | None = None
    """The id of a row with `train`: one run here is for both."""
    command: str | None = None
    model_of: str | None = None
    """With `command`: the id of a row with `train` whose model it has."""
    missing: str | None = None
    setting: Setting | None = None
    """Where it is not the table's."""
    note: str = ""

    @property
    def values(self) -> list[str]:
        return self.printed.split(" | ")

    @property
    def can_be_run(self) -> bool:
        return self.missing is None


@dataclass(frozen=True)
class Table:
    """A table of the paper, or with `part` "a" or "b" one of the two that share a number."""

    number: int
    title: str
    setting: Setting
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    part: str = ""

    @property
    def name(self) -> str:
        """ "2a", say."""
        return f"{self.number}{self.part}"

    def setting_of(self, row: Row) -> Setting:
        return row.setting or self.setting


@dataclass(frozen=True)
class Figure:
    """A figure of the paper."""

    number: int
    title: str
    printed: str
    """What can be read off it: axes, curves, pictures."""
    command: str | None = None
    """Draws the like of it."""
    missing: str | None = None
    """Why there is no command."""
    notes: Sequence[str] = ()


RFID = Column("rFID", "rfid")
LPIPS = Column("LPIPS", "lpips-vgg", ".3f")
PSNR = Column("PSNR, dB", "psnr")
SSIM = Column("SSIM", "ssim", ".3f")
QUALITY = (RFID, LPIPS, PSNR, SSIM)
ENCODER_PARAMETERS = Column("encoder, M", "encoder_parameters_m", ".3f")
AGGREGATION_PARAMETERS = Column("aggregation, M", "aggregation_parameters_m", ".3f")
BETTER = "PSNR and SSIM: higher is better. rFID, FID and LPIPS: lower is better."
