"""Does every command of a row exist, and does it make the model that the row is of?"""

import dataclasses
import functools
import shlex
from pathlib import Path

import pytest

from litevae import paper
from litevae.config import PRESETS
from litevae.evaluation.catalogue import METRICS
from litevae.evaluation.request import Request
from litevae.evaluation.request import parse as parse_request
from litevae.paper_tables.commands import commands, configs, trained, training
from litevae.paper_tables.contents import ROWS
from litevae.paper_tables.drawings import DRAWINGS
from litevae.paper_tables.figures import FIGURES
from litevae.runs.command_line import parse
from litevae.runs.recipes import load_config
from litevae.training.config import RunConfig
from litevae.training.networks import check_discriminator

TRAINED = [name for name, (_, row) in ROWS.items() if row.train]
FILLED_BY_TRAINING = [name for name, (_, row) in ROWS.items() if trained(row).train]


@functools.cache
def built(identifier: str) -> list[RunConfig]:
    return configs(ROWS[identifier][1])


@pytest.mark.parametrize("identifier", FILLED_BY_TRAINING)
def test_the_run_has_the_rows_setting(identifier: str) -> None:
    """Data set, side, latent and steps; and that it would be the VAE where the row is of the VAE."""
    table, row = ROWS[identifier]
    setting, runs = table.setting_of(row), built(identifier)
    last, architecture = runs[-1], runs[-1].model.architecture
    assert (last.data.evaluation_size, architecture.latent_channels) == (setting.side, setting.latent_channels)
    if table.number != 6:  # whose data and steps are not stated
        assert sum(run.train.steps for run in runs) == setting.steps
        recipe = next(training(row))[0]
        assert setting.dataset is not None
        assert recipe.startswith(setting.dataset.lower())
    is_vae = table.number == 22 or row.label.endswith((" VAE", "SD-VAE", "VAE-Small")) or row.label == "VAE"
    assert last.model.kind == ("sd-vae" if is_vae else "litevae")
    if "LiteVAE-" in row.label:
        assert last.model.size == row.label[-1]


@pytest.mark.parametrize("identifier", TRAINED)
def test_later_runs_go_on_with_the_first_ones(identifier: str) -> None:
    """With its model and discriminator."""
    runs = built(identifier)
    assert all((run.model, run.discriminator) == (runs[0].model, runs[0].discriminator) for run in runs)
    folders = [run.run.dir for run in runs]
    assert folders[-1] == f"runs/{identifier}"
    assert [run.train.start_from for run in runs] == [None, *folders[:-1]]


@pytest.mark.slow
def test_discriminators_take_the_crops() -> None:
    every = {f"{run.discriminator} {run.data.crop_size}": run for name in TRAINED for run in built(name)}
    assert len(every) > 3
    for run in every.values():
        check_discriminator(run)


def test_runs_differ() -> None:
    """Two rows with one config would be `same_as`."""

    def told(identifier: str) -> dict[str, object]:
        values = built(identifier)[-1].as_dict()
        del values["run"]
        return {**values, "train": {**values["train"], "start_from": None}}

    every = {identifier: told(identifier) for identifier in TRAINED}
    for index, one in enumerate(TRAINED):
        assert [other for other in TRAINED[:index] if every[other] == every[one]] == []


def test_ablations_change_what_they_name() -> None:
    def config(identifier: str) -> RunConfig:
        return built(identifier)[-1]

    base = config("1-imagenet128-12-litevae")
    changed = {
        "4-smc": (base.model, config("4-smc").model, {"decoder_normalization": "smc"}),
        "17": (config("17-without").model, config("17-with").model, {"use_quant_conv": True}),
        "8": (base.loss, config("8-adaptive").loss, {"adversarial_weighting": "adaptive", "adversarial_weight": 1.0}),
        "9": (base.loss, config("9-baseline").loss, {"wavelet_weight": 0.0, "gaussian_weight": 0.0}),
        "9b": (base.loss, config("9-gaussian").loss, {"wavelet_weight": 0.0}),
        "10": (base.discriminator, config("10-patchgan").discriminator, {"kind": "patchgan"}),
        "10b": (base.discriminator, config("10-stylegan").discriminator, {"kind": "stylegan"}),
        "11": (config("11-ffhq-sd-vae").train, config("11-ffhq-dwt").train, {}),
        "11b": (config("11-ffhq-sd-vae").loss, config("11-ffhq-dwt").loss, {"kl_weight": 0.0}),
        "12": (config("12-dwt").model, config("12-dwt-2").model, {"encoder_type": "dwt-2", "latent_channels": 48}),
        "12b": (config("12-sd-vae").loss, config("12-dwt").loss, {"kl_weight": 0.0}),
        "14": (base.perceptual, config("14-esrgan").perceptual, {"kind": "vgg19"}),
        "15": (config("15-without-ldl").loss, config("15-with-ldl").loss, {"ldl_weight": 1.0}),
        "15b": (base.train, config("15-without-ldl").train, {"ema_decay": 0.999}),
        "16": (base.loss, config("16-logistic").loss, {"adversarial_loss": "logistic"}),
        "18": (base.model, config("18-nafnet").model, {"extraction": "nafnet"}),
        "19": (config("19-separate").model, config("19-shared").model, {"shared_extraction": True}),
        "20": (base.model, config("20-vit").model, {"aggregation": "vit"}),
        "21": (config("21-all").model, config("21-last-two").model, {"wavelet_levels": [2, 3]}),
    }
    for name, (before, after, difference) in changed.items():
        assert dataclasses.replace(before, **difference) == after, name  # type: ignore[type-var]


@pytest.mark.parametrize("identifier", FILLED_BY_TRAINING)
def test_commands_are_what_the_programs_take(identifier: str) -> None:
    table, row = ROWS[identifier]
    *runs, evaluation = [shlex.split(line) for line in commands(row, table.setting_of(row))]
    loaded = []
    for words in runs:
        assert words[:3] == ["python", "-m", "litevae.train"]
        arguments = parse(words[3:])
        loaded.append(load_config(RunConfig, arguments.recipe, arguments.overrides))
    expected = built(identifier)
    assert [run.run.dir for run in loaded] == [run.run.dir for run in expected]
    assert all(run.data.path in ("~/imagenet/train", "~/ffhq/train") for run in loaded)
    assert evaluation[:4] == ["python", "-m", "litevae.evaluate", loaded[-1].run.dir]
    assert evaluation[4:] == [
        str(loaded[-1].data.path).replace("train", "val"),
        "--sizes",
        str(table.setting_of(row).side),
    ]


@pytest.mark.parametrize("identifier", [name for name, (_, row) in ROWS.items() if row.can_be_run])
def test_evaluations_are_what_litevae_evaluate_takes(identifier: str) -> None:
    table, row = ROWS[identifier]
    for line in commands(row, table.setting_of(row)):
        if "litevae.evaluate" in line:
            request = parse_request(shlex.split(line)[3:])
            assert isinstance(request, Request)
            assert request.sizes == (table.setting_of(row).side,)
            measured = request.metrics or METRICS  # without the option all that the machine can measure
            keys = {column.key for column in table.columns if column.key and not column.key.endswith("parameters_m")}
            assert {"mmd" if key.startswith("mmd-") else key for key in keys} <= {*measured}


@pytest.mark.parametrize("size", PRESETS)
def test_the_command_of_a_size_prints_it(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (23, 24):
        table, row = ROWS[f"{number}-litevae-{size.lower()}"]
        (line,) = commands(row, table.setting_of(row))
        python, option, program = shlex.split(line)
        assert (python, option) == ("python", "-c")
        exec(program, {})
        assert capsys.readouterr().out == f"{PRESETS[size]}\n"


def test_the_benchmark_of_table_3_is_there() -> None:
    _, row = ROWS["3-vae"]
    assert row.command == "pytest benchmarks --benchmark-only -q -k table3"
    assert (Path(__file__).parents[2] / "benchmarks" / "bench_table3_encoders.py").is_file()


def test_commands_of_figures_are_what_the_programs_take() -> None:
    """Those that `litevae.paper` draws are asked for with the option that they need."""
    for number, figure in FIGURES.items():
        words = shlex.split(figure.command or "")
        assert (words[:3] == ["python", "-m", "litevae.paper"]) == (number in DRAWINGS)
        if number in DRAWINGS:
            arguments = paper._parser().parse_args(words[3:])
            assert (arguments.kind, arguments.number) == ("figure", number)
            assert len(getattr(arguments, DRAWINGS[number].option)) == 2
