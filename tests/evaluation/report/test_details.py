"""Is every value of `details` on the page: in its table or chart where it is known, else by its key?"""

from typing import Any

import pytest

from litevae.evaluation.mmd import PRINTED
from litevae.evaluation.report.details import panels
from litevae.evaluation.report.tables import Table
from litevae.evaluation.report.wording import flatten

from .measured import measured_details

CHANNELS = {
    "channel_means": "Mean",
    "channel_stds": "Std",
    "stds_of_means": "Std of means",
    "posterior_stds": "Posterior std",
    "channel_kl": "KL [nats]",
    "skewness": "Skewness",
    "excess_kurtosis": "Excess kurtosis",
}


def cells(table: Table) -> list[list[str]]:
    return [[row.head, *(cell.text for cell in row.cells)] for _, rows in table.groups for row in rows]


def shown(values: list[float], decimals: int) -> list[str]:
    return [f"{value:.{decimals}f}" for value in values]


def test_statistics_of_channels_and_of_all() -> None:
    values = measured_details()["statistics"]
    statistics, *_ = panels([{"statistics": values}], ["S"])
    channels, overall = statistics.tables
    assert channels.header == ["Channel", *CHANNELS.values()]
    columns = list(zip(*cells(channels), strict=True))
    assert columns[0] == ("0", "1", "2", "3")
    for (key, _), column in zip(CHANNELS.items(), columns[1:], strict=True):
        largest = max(map(abs, values[key]))
        assert 0.01 < largest < 10  # four digits of the largest for all
        decimals = 3 if largest >= 1 else 4 if largest >= 0.1 else 5
        assert list(column) == shown(values[key], decimals)
    assert cells(overall) == [
        ["Images", "4"],
        ["Mean", f"{values['mean']:.4g}"],
        ["Std", f"{values['std']:.4g}"],
        ["Scaling factor, 1 / std", f"{values['scaling_factor']:.4g}"],
        ["KL to N(0, 1) [nats per element]", f"{values['kl']:.4g}"],
        ["Active channels", "4"],
        ["Active where the means' variance is above", "0.01"],
    ]
    [heat] = statistics.heats
    assert (heat.rows, heat.covariance, heat.numbers) == (values["correlation"], values["covariance"], True)


def test_spectra_are_curves_with_slopes() -> None:
    values = measured_details()["spectrum"]
    spectrum, *_ = panels([{"spectrum": values}], ["S"])
    [chart] = spectrum.charts
    for key, name in (("latent_power", "latents"), ("image_power", "images")):
        for radius, power in zip(values["radius"], values[key], strict=True):
            assert power is None or f"{name}, {radius:.4g}: {power:.4g}" in chart.says.split("; ")
    assert [line.series for line in chart.lines] == [0, None]
    assert spectrum.dashed == "images"
    channels, overall = map(cells, spectrum.tables)
    assert channels == [[str(index), f"{slope:.4f}"] for index, slope in enumerate(values["channel_slopes"])]
    assert overall == [
        ["Images", "4"],
        ["Slope of latents", f"{values['latent_slope']:.4g}"],
        ["Slope of images", f"{values['image_slope']:.4g}"],
        ["KL(images || latents) [nats]", f"{values['kl']:.4g}"],
    ]


def test_equivariance_has_a_row_for_each_transformation() -> None:
    values = measured_details()["equivariance"]
    equivariance, *_ = panels([{"equivariance": values}], ["S"])
    errors, rest = equivariance.tables
    assert errors.header == ["Transformation", "Squared error", "Relative error"]
    assert cells(errors) == [
        [kind.capitalize(), f"{values[kind]['squared']:#.4g}", f"{values[kind]['relative']:#.4g}"]
        for kind in ("identity", "rotation", "scale")
    ]
    assert cells(rest) == [["Images", "4"]]


def test_mmd_stands_beside_zero_and_the_paper() -> None:
    values = measured_details()["mmd"]
    mmd, *_ = panels([{"mmd": values}], ["S"])
    rows, settings = mmd.tables
    assert rows.header == ["sigma", "Latents", "Zero", "SD-VAE, paper", "LiteVAE, paper"]
    for row, (sigma, latents, zero, *paper) in zip(values["rows"], cells(rows), strict=True):
        assert sigma == f"{row['sigma']:g}"
        for text, key in ((latents, "mmd"), (zero, "gaussian")):
            found = [float(part) for part in text.split(" ± ")]
            assert found == pytest.approx([row[key], row[f"{key}_plus_minus"]], abs=0.0051)
        assert paper == [f"{value:.2f} ± {spread:.2f}" for value, spread in PRINTED[row["sigma"]]]
    assert [head for head, _ in cells(settings)] == [
        "Unit", "Kernel", "Estimator", "Latents", "Images", "Draws of the Gaussian", "Elements of a latent",
        "Median distance of two latents",
    ]  # fmt: skip
    assert ["Elements of a latent", "256"] in cells(settings)


def test_models_stand_side_by_side() -> None:
    one, other = measured_details(), measured_details(seed=1)
    statistics, spectrum, equivariance, mmd = panels([one, other], ["A", "B"])
    assert [table.caption for table in statistics.tables] == ["By channel, A", "By channel, B", "", "Alike for all"]
    assert ["Images", "4"] in cells(statistics.tables[3])
    assert [heat.title for heat in statistics.heats] == ["Correlation of channels, A", "Correlation of channels, B"]
    assert [line.series for line in spectrum.charts[0].lines] == [0, 1, None]  # both saw the same images
    assert spectrum.tables[0].header == ["Channel", "A", "B"]
    assert [title for title, _ in equivariance.tables[0].groups] == ["Relative error", "Squared error"]
    assert cells(equivariance.tables[0])[1] == [
        "Rotation", *(f"{model['equivariance']['rotation']['relative']:#.4g}" for model in (one, other))
    ]  # fmt: skip
    assert mmd.tables[0].header == ["sigma", "A", "B", "Zero", "SD-VAE, paper", "LiteVAE, paper"]
    assert [head for head, *_ in cells(mmd.tables[1])] == ["Median distance of two latents"]
    assert ["Elements of a latent", "256"] in cells(mmd.tables[2])


def test_models_with_other_latents_have_their_own_zero() -> None:
    statistics, spectrum, _, mmd = panels([measured_details(), measured_details(channels=9)], ["A", "B"])
    assert mmd.tables[0].header[1:5] == ["A", "B", "Zero, A", "Zero, B"]
    assert [heat.numbers for heat in statistics.heats] == [True, False]
    assert [row[1] for row in cells(spectrum.tables[0])][4:] == ["-"] * 5


def test_a_model_without_latents_is_left_out_and_the_others_keep_their_colours() -> None:
    one, other = measured_details(), measured_details(seed=1)
    _, spectrum, _, mmd = panels([one, {}, other], ["A", "bicubic", "B"])
    assert mmd.tables[0].header[:4] == ["sigma", "A", "B", "Zero"]
    assert (spectrum.names, spectrum.series) == (["A", "B"], [0, 2])
    assert [line.series for line in spectrum.charts[0].lines] == [0, 2, None]
    alone = panels([{}, one], ["bicubic", "A"])
    assert [panel.title for panel in alone][1:3] == ["Spectrum of latents: A", "Equivariance of the decoder: A"]
    assert [line.series for line in alone[1].charts[0].lines] == [1, None]
    assert alone[3].tables[0].header[:3] == ["sigma", "Latents", "Zero"]


def test_numbers_that_are_not_finite_are_dashes() -> None:
    """A deterministic encoder with a constant channel: no KL, no skewness, no correlation."""
    details = measured_details(constant=True)
    assert details["statistics"]["kl"] is None
    statistics, *_ = panels([details], ["S"])
    *_, last = cells(statistics.tables[0])
    assert (last[5], last[6], last[7]) == ("-", "-", "-")
    assert statistics.heats[0].rows[3] == [None] * 4
    assert ["KL to N(0, 1) [nats per element]", "-"] in cells(statistics.tables[1])


def test_a_key_of_a_newer_version_is_listed() -> None:
    details = measured_details()
    details["statistics"] |= {"fresh": [7, 8, 9, 10], "median": 0.125}
    details["mmd"]["rows"][0]["p_value"] = 0.0625
    details["equivariance"]["flip"] = {"squared": 0.5, "relative": 0.75}
    details["kid"] = {"kid_std": 0.375}
    statistics, _, equivariance, mmd, kid = panels([details], ["S"])
    assert statistics.tables[0].header[-1] == "fresh"
    assert ["median", "0.125"] in cells(statistics.tables[1])
    assert ["Flip", "0.5000", "0.7500"] in cells(equivariance.tables[0])
    assert ["sigma 25, p_value", "0.0625"] in cells(mmd.tables[1])
    assert (kid.title, cells(kid.tables[0])) == ("KID", [["Std over subsets", "0.375"]])


def test_without_details_there_is_no_panel() -> None:
    assert panels([{}, {"mmd": {}, "statistics": None}], ["A", "B"]) == []


ODD = [
    {"fwd": {"levels": [1, 2], "deep": {"er": "here"}}},
    {"fwd": 0},
    {"fwd": False},
    {"statistics": 7.5},
    {"statistics": {"correlation": [[1.0, 2.0]], "channel_means": [0.5, None], "kl": "seven"}},
    {"statistics": {"correlation": [[1.0]], "covariance": [[2.0], [3.0]], "channel_means": []}},
    {"statistics": {"channel_means": [1.5], "channel_kl": [2.5, 3.5]}},
    {"spectrum": {"radius": [0.125], "latent_power": [0.25], "image_power": [0.5]}},
    {"spectrum": {"radius": [0.125, 1], "latent_power": [0.25, 0.75], "image_power": ["x", "y"]}},
    {"spectrum": {"radius": [0.125, 1], "latent_power": [0.25, 0.75, 9], "channel_slopes": "steep"}},
    {"spectrum": [1, 2]},
    {"equivariance": {"rotation": {"squared": 1.25}, "scale": "none"}},
    {"mmd": {"rows": [1, 2]}},
    {"mmd": {"rows": [{"sigma": [25], "mmd": 1.5}, {"mmd": None}]}},
    {"mmd": {"rows": [{"sigma": 25, "mmd": 1.5, "paper": {"sd-vae": "8.67", "other": [3.25]}}]}},
    {"mmd": "gone"},
]


def leaves(value: Any) -> list[str]:
    if isinstance(value, (dict, list)):
        return [leaf for entry in (value.values() if isinstance(value, dict) else value) for leaf in leaves(entry)]
    return [] if value is None else [str(value).lower()]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_nothing_is_lost_whatever_it_is(odd: dict[str, Any]) -> None:
    for details in ([odd], [odd, {}], [measured_details(), odd]):
        text = str(panels(details, ["A", "B"][: len(details)])).lower()
        assert [leaf for leaf in leaves(odd) if leaf not in text] == []


def test_no_real_value_is_lost() -> None:
    """Each with the digits that some table, chart or heat map gives it."""
    details = measured_details()
    text = str(panels([details], ["S"]))
    for key, value in flatten(details).items():
        if not value.startswith("["):
            assert value in text, key
