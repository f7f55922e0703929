"""Is every value of `details` on the page: in its table or chart where it is known, else by its key?"""

from typing import Any

import pytest

from litevae.evaluation.report.details import Panel, panels

KNOWN: dict[str, Any] = {
    "statistics": {
        "channel_means": [0.5, -0.25],
        "channel_stds": [1.0, 2.0],
        "correlation": [[1.0, -0.5], [-0.5, 1.0]],
        "kl": [3.0, 0.0],
        "fresh": [7, 8],
        "std": 0.83,
    },
    "spectrum": {"latent": [0.5, 0.3, 0.2], "image": [0.8, 0.15, 0.05], "slope_latent": -1.4},
    "equivariance": {"rot90": 0.0123, "scale": 0.5},
    "mmd": {
        "rows": [{"sigma": 25, "mean": 1.5, "std": 0.1, "gaussian_mean": 0.01, "printed": {"SD-VAE": "8.67"}}],
        "dimension": 4096,
    },
}


def tables(panel: Panel) -> dict[str, tuple[list[str], list[list[str]]]]:
    return {
        table.caption: (
            table.header,
            [[row.head, *(cell.text for cell in row.cells)] for _, rows in table.groups for row in rows],
        )
        for table in panel.tables
    }


def test_what_is_known_has_its_place() -> None:
    statistics, spectrum, equivariance, mmd = panels([KNOWN], ["S"])
    assert tables(statistics) == {
        "By channel": (
            ["Channel", "Mean", "Std", "KL", "fresh"],
            [["0", "0.5000", "1.000", "3.000", "7.000"], ["1", "-0.2500", "2.000", "0.000", "8.000"]],
        ),
        "Other values": ([], [["std", "0.83"]]),
    }
    [heat] = statistics.heats
    assert heat.rows == KNOWN["statistics"]["correlation"]
    [chart] = spectrum.charts
    assert (
        chart.says
        == "latents, 1: 0.5; latents, 2: 0.3; latents, 3: 0.2; images, 1: 0.8; images, 2: 0.15; images, 3: 0.05"
    )
    assert [line.series for line in chart.lines] == [0, None]
    assert spectrum.dashed == "images"
    assert tables(spectrum) == {"Other values": ([], [["slope_latent", "-1.4"]])}
    assert tables(equivariance) == {"": (["Transformation", "Error"], [["rot90", "0.0123"], ["scale", "0.5"]])}
    assert tables(mmd) == {
        "": (["sigma", "Latents", "Gaussian", "SD-VAE, paper"], [["25", "1.5 ± 0.1", "0.01", "8.67"]]),
        "Other values": ([], [["dimension", "4,096"]]),
    }
    assert mmd.note


def test_models_stand_side_by_side() -> None:
    other = {
        "spectrum": {"latent": [0.6, 0.2, 0.2], "image": [0.8, 0.15, 0.05]},
        "mmd": {"rows": [{"sigma": 25, "mean": 2.5}, {"sigma": 50, "mean": 3.5}]},
    }
    statistics, spectrum, equivariance, mmd = panels([KNOWN, other], ["A", "B"])
    assert list(tables(statistics)) == ["A", "Other values"]
    assert [line.series for line in spectrum.charts[0].lines] == [0, 1, None]
    assert tables(equivariance)[""] == (["Transformation", "A", "B"], [["rot90", "0.0123", "-"], ["scale", "0.5", "-"]])
    assert tables(mmd)[""] == (
        ["sigma", "A", "B", "Gaussian", "SD-VAE, paper"],
        [["25", "1.5 ± 0.1", "2.5", "0.01; -", "8.67"], ["50", "-", "3.5", "-", "-"]],
    )


def test_without_details_there_is_no_panel() -> None:
    assert panels([{}, {"mmd": {}, "statistics": None}], ["A", "B"]) == []


ODD = [
    {"fwd": {"levels": [1, 2], "deep": {"er": "here"}}},
    {"fwd": 0},
    {"fwd": False},
    {"statistics": 7.5},
    {"statistics": {"correlation": [[1.0, 2.0]], "channel_means": [0.5, None], "kl": "seven"}},
    {"statistics": {"channel_means": [1.5], "kl": [2.5, 3.5]}},
    {"spectrum": {"latent": [0.25], "image": ["x"]}},
    {"spectrum": [1, 2]},
    {"equivariance": {"rot90": {"mean": 1.25}, "flip": "none"}},
    {"mmd": {"rows": [1, 2]}},
    {"mmd": {"rows": [{"sigma": [25], "mean": "m", "p_value": 0.25}, {"mean": None}]}},
    {"mmd": "gone"},
]


def leaves(value: Any) -> list[str]:
    if isinstance(value, (dict, list)):
        return [leaf for entry in (value.values() if isinstance(value, dict) else value) for leaf in leaves(entry)]
    return [] if value is None else [str(value).lower()]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_nothing_is_lost_whatever_it_is(odd: dict[str, Any]) -> None:
    for details in ([odd], [odd, {}], [KNOWN, odd]):
        shown = str(panels(details, ["A", "B"][: len(details)])).lower()
        assert [leaf for leaf in leaves(odd) if leaf not in shown] == []
