"""Is every table, row and figure there, whole, and in agreement with the models that are built here?"""

import re

import pytest
import torch

from litevae import LiteVAE
from litevae.config import PRESETS, Aggregation
from litevae.cost import parameter_count
from litevae.evaluation.autoencoders import aggregation_parameters
from litevae.models.baseline import VAE_SMALL_CHANNELS, StableDiffusionVAE
from litevae.paper_tables.contents import ROWS, TABLES, figure, row, tables
from litevae.paper_tables.figures import FIGURES
from litevae.paper_tables.structure import Row

NUMBER = re.compile(r"\d+(\.\d+)?(±\d+\.\d+)?")


def test_all_tables_and_figures_are_there() -> None:
    assert [table.name for table in TABLES] == ["1", "2a", "2b", *map(str, range(3, 25))]
    assert list(FIGURES) == list(range(1, 10))
    assert [table.name for table in tables(2)] == ["2a", "2b"]
    assert figure(5).number == 5


def test_an_id_is_of_one_row_and_begins_with_its_table() -> None:
    assert len(ROWS) == sum(len(table.rows) for table in TABLES) == 80
    for identifier, (table, found) in ROWS.items():
        assert identifier == found.id
        assert re.fullmatch(rf"{table.name}-[a-z0-9-]+", identifier)


@pytest.mark.parametrize("identifier", ROWS)
def test_printed_values_are_numbers_one_for_each_column(identifier: str) -> None:
    table, found = ROWS[identifier]
    assert len(found.values) == len(table.columns)
    for column, value in zip(table.columns, found.values, strict=True):
        if column.heading == "multipliers":
            assert re.fullmatch(r"\(\d, \d, \d\)", value)
        else:
            assert NUMBER.fullmatch(value) or (table.number == 24 and (column.heading, value) == ("out", "n_z"))
        if column.heading == "SSIM":
            assert 0.5 < float(value) < 1
        if column.heading == "PSNR, dB":
            assert 20 < float(value) < 35


@pytest.mark.parametrize("identifier", ROWS)
def test_a_row_has_one_way_to_be_filled_or_a_reason(identifier: str) -> None:
    found = ROWS[identifier][1]
    ways = [bool(found.train), found.same_as is not None, found.command is not None, found.missing is not None]
    assert sum(ways) == 1
    if found.same_as is not None:
        assert row(found.same_as)[1].train


def test_a_figure_has_a_command_or_a_reason() -> None:
    assert all((item.command is None) != (item.missing is None) for item in FIGURES.values())


def values(identifier: str) -> list[str]:
    return ROWS[identifier][1].values


def encoder_millions(model: LiteVAE | StableDiffusionVAE) -> float:
    parts = [part for part in (model.encoder, model.quant_conv) if part is not None]
    return sum(parameter.numel() for part in parts for parameter in part.parameters()) / 1e6


def built(name: str) -> LiteVAE | StableDiffusionVAE:
    with torch.device("meta"):
        if name.startswith("LiteVAE"):
            return LiteVAE.from_preset(name[-1])
        return StableDiffusionVAE.from_architecture(encoder_channels=VAE_SMALL_CHANNELS if "Small" in name else None)


@pytest.mark.parametrize("identifier", [row.id for number in (2, 3) for table in tables(number) for row in table.rows])
def test_printed_parameters_are_those_of_the_models_here(identifier: str) -> None:
    """To the last printed digit, rounded or cut off, at n_z 4; but for VAE-Small, whose widths are not printed."""
    table, found = ROWS[identifier]
    assert table.columns[0].heading == "encoder, M"
    printed, here = found.values[0], encoder_millions(built(found.label))
    digit = 10.0 ** -len(printed.partition(".")[2])
    error = here - float(printed)
    assert (0.0 <= error < 0.05) if found.label == "VAE-Small" else (-digit / 2 <= error < digit)


def test_parameters_that_table_1_speaks_of_are_those_of_the_models_here() -> None:
    (note,) = [note for note in tables(1)[0].notes if "34.16" in note]
    assert f"VAE {encoder_millions(built('VAE')):.2f} M" in note
    assert f"LiteVAE {encoder_millions(built('LiteVAE-B')):.2f} M" in note


def test_parameters_at_12_channels_are_those_of_the_models_here() -> None:
    (note,) = [note for note in tables(2)[0].notes if "At n_z 12" in note]
    for size in "SBML":
        with torch.device("meta"):
            count = encoder_millions(LiteVAE.from_preset(size, latent_channels=12))
        assert f"{size} {count:.3f} M" in note


@pytest.mark.parametrize("kind", ["unet", "vit"])
def test_the_aggregators_of_table_20_have_the_printed_parameters(kind: Aggregation) -> None:
    """At n_z 4; at n_z 12, which its runs have, those of its note."""
    with torch.device("meta"):
        models = [LiteVAE.from_preset("B", aggregation=kind, latent_channels=channels) for channels in (4, 12)]
    at_4, at_12 = (aggregation_parameters(model)["aggregation_parameters"] / 1e6 for model in models)
    assert f"{at_4:.2f}" == values(f"20-{kind}")[0]
    assert f"{at_12:.3f} M" in tables(20)[0].notes[0]


def test_the_nafnet_of_table_18_is_as_large_as_the_unet() -> None:
    with torch.device("meta"):
        models = [LiteVAE.from_preset("B", extraction=kind) for kind in ("unet", "nafnet")]
    unet, nafnet = (parameter_count(model.encoder.extraction[0]) for model in models)
    assert f"({100 * (nafnet / unet - 1):.1f} % more)" in tables(18)[0].notes[0]


@pytest.mark.parametrize("size", PRESETS)
def test_tables_23_and_24_are_the_presets(size: str) -> None:
    preset = PRESETS[size]
    with torch.device("meta"):
        encoder = LiteVAE.from_preset(size, latent_channels=7).encoder
    extraction, aggregation = encoder.extraction[0], encoder.aggregation
    sides = [str(extraction.conv_in.in_channels), str(extraction.conv_out.out_channels)]
    assert values(f"23-litevae-{size.lower()}") == [
        *sides, str(preset.extraction_channels), str(preset.extraction_multipliers)
    ]  # fmt: skip
    assert aggregation.conv_out.out_channels == 2 * 7
    assert values(f"24-litevae-{size.lower()}") == [
        str(aggregation.conv_in.in_channels), "n_z", str(preset.aggregation_channels),
        str(preset.aggregation_multipliers),
    ]  # fmt: skip


def test_rows_that_the_paper_repeats_are_alike() -> None:
    """What the notes say: one model, or one run, in several tables."""
    alike = [
        ("2b-vae", "1-imagenet128-vae"),
        ("2b-litevae-b", "1-imagenet128-litevae"),
        ("10-unet", "4-group-norm"),
        ("8-adaptive", "4-group-norm"),
        ("15-without-ldl", "14-lpips"),
        ("16-hinge", "14-lpips"),
        ("17-without", "1-imagenet256-litevae"),
        ("18-unet", "2a-litevae-b"),
        ("19-separate", "5-256-full"),
        ("21-all", "1-imagenet256-litevae"),
        ("13-litevae", "7-ffhq-litevae"),
    ]
    for one, other in alike:
        numbers = [[float(value) for value in values(name)[-4:]] for name in (one, other)]
        assert numbers[0] == numbers[1], (one, other)


def test_notes_name_the_slips_that_are_there() -> None:
    assert values("2a-vae")[1] != values("1-imagenet128-12-vae")[0]
    assert values("2a-litevae-b")[3] != values("1-imagenet128-12-litevae")[2]
    assert values("20-unet")[1:3] == values("2a-litevae-b")[1:3]
    assert values("20-unet")[3:] == values("2a-vae")[3:] != values("2a-litevae-b")[3:]
    assert values("3-litevae-m")[1] == values("3-litevae-l")[1]
    assert [values("22-128-full")[place] for place in (0, 2, 3)] == [
        values("1-imagenet256-vae")[place] for place in (0, 2, 3)
    ]
    for stage in ("256-full", "128-full", "128-tuned"):
        assert float(values(f"22-{stage}")[0]) < float(values(f"5-{stage}")[0])
        assert float(values(f"22-{stage}")[2]) < float(values(f"5-{stage}")[2])
    assert float(values("1-ffhq256-vae")[1]) < float(values("1-ffhq256-litevae")[1])


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"table must be from 1 to 24, got 25"):
        tables(25)
    with pytest.raises(ValueError, match=r"figure must be from 1 to 9, got 0"):
        figure(0)
    with pytest.raises(
        ValueError, match=r"a row must be called by its id, got '2a-litevae-x'; did you mean 2a-litevae-"
    ):
        row("2a-litevae-x")
    with pytest.raises(ValueError, match=r"got 'zzzz'; `python -m litevae.paper` lists them"):
        row("zzzz")


def test_values_are_split_at_bars() -> None:
    assert Row("x", "", "12 | (1, 2)").values == ["12", "(1, 2)"]
