"""Does a configuration refuse what no model can be built from, and say what it may be?"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import typing

import pytest

from litevae import PRESETS, LiteVAE, LiteVAEConfig, StableDiffusionVAE
from litevae.config import preset

BAD = [
    ({"latent_channels": True}, TypeError, "latent_channels must be an int, got True"),
    ({"latent_channels": 4.0}, TypeError, "latent_channels must be an int, got 4.0"),
    ({"latent_channels": 0}, ValueError, "latent_channels must be at least 1, got 0"),
    ({"in_channels": "3"}, TypeError, "in_channels must be an int, got '3'"),
    ({"layers_per_block": -1}, ValueError, "layers_per_block must be at least 1, got -1"),
    ({"extraction_multipliers": ()}, ValueError, "extraction_multipliers must have at least one entry"),
    ({"extraction_multipliers": (1, 2.5)}, TypeError, r"extraction_multipliers\[1\] must be an int, got 2.5"),
    ({"aggregation_multipliers": 3}, TypeError, "aggregation_multipliers must be a list or tuple"),
    ({"block_out_channels": (8, 8, 8)}, ValueError, "block_out_channels must have 4 entries"),
    ({"block_out_channels": (8, 8, 8, True)}, TypeError, r"block_out_channels\[3\] must be an int, got True"),
    ({"decoder_normalization": "batch"}, ValueError, "must be one of 'group_norm', 'smc', 'none', got 'batch'"),
    ({"decoder_normalization": None}, TypeError, "decoder_normalization must be one of"),
    ({"output_type": "pixels"}, ValueError, "output_type must be one of 'image', 'wavelet', got 'pixels'"),
    ({"decoder_outer_norm": 1}, TypeError, "decoder_outer_norm must be True, False or None, got 1"),
    ({"use_quant_conv": 0}, TypeError, "use_quant_conv must be True or False, got 0"),
    ({"dropout": float("nan")}, ValueError, "dropout must be at least 0 and below 1, got nan"),
    ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1, got 1.0"),
    ({"dropout": "0.1"}, TypeError, "dropout must be a number, got '0.1'"),
    ({"dropout": False}, TypeError, "dropout must be a number, got False"),
    ({"scaling_factor": 0.0}, ValueError, "scaling_factor must not be 0"),
    ({"scaling_factor": float("inf")}, ValueError, "scaling_factor must be finite, got inf"),
    ({"shift_factor": float("nan")}, ValueError, "shift_factor must be finite, got nan"),
    ({"latent_channel_means": 0.0}, TypeError, "latent_channel_means must be a list or tuple of numbers, or None"),
    ({"latent_channel_means": (0.0,) * 3}, ValueError, "latent_channel_means must have an entry for each of the 4"),
    ({"latent_channel_means": (0.0, 0, "1", 0)}, TypeError, r"latent_channel_means\[2\] must be a number, got '1'"),
    (
        {"latent_channel_stds": (1.0, 1, 1, 0)},
        ValueError,
        r"latent_channel_stds\[3\] must be finite and above 0, got 0",
    ),
    ({"latent_channel_stds": [1.0, float("nan"), 1, 1]}, ValueError, r"latent_channel_stds\[1\] must be finite"),
    ({"encoder_type": "haar"}, ValueError, "encoder_type must be one of 'learned', 'dwt', 'dwt-2', got 'haar'"),
    ({"extraction": "vit"}, ValueError, "extraction must be one of 'unet', 'nafnet', got 'vit'"),
    ({"aggregation": "nafnet"}, ValueError, "aggregation must be one of 'unet', 'vit', got 'nafnet'"),
    (
        {"encoder_normalization": "batch"},
        ValueError,
        "encoder_normalization must be one of 'group_norm', 'smc', 'none'",
    ),
    ({"shared_extraction": 1}, TypeError, "shared_extraction must be True or False, got 1"),
    ({"nafnet_width": 0}, ValueError, "nafnet_width must be at least 1, got 0"),
    ({"nafnet_blocks": 2.0}, TypeError, "nafnet_blocks must be an int, got 2.0"),
    ({"vit_width": 0}, ValueError, "vit_width must be at least 1, got 0"),
    ({"vit_depth": 0}, ValueError, "vit_depth must be at least 1, got 0"),
    ({"vit_heads": 0}, ValueError, "vit_heads must be at least 1, got 0"),
    ({"aggregation": "vit", "vit_heads": 3}, ValueError, "vit_heads must divide vit_width, 128, got 3"),
    ({"wavelet_levels": 3}, TypeError, "wavelet_levels must be a list or tuple"),
    ({"wavelet_levels": ()}, ValueError, "wavelet_levels must have at least one entry"),
    ({"wavelet_levels": (0, 3)}, ValueError, r"wavelet_levels\[0\] must be at least 1, got 0"),
    *(
        (
            {"wavelet_levels": levels},
            ValueError,
            r"wavelet_levels must be different levels in order, the last one 2, 3 or",
        )
        for levels in ((1,), (2, 2, 3), (3, 2), (1, 5))
    ),
    (
        {"wavelet_levels": (1, 2)},
        ValueError,
        r"block_out_channels must have 3 entries \(the latent has 1/4 of the image's",
    ),
    ({"wavelet_levels": (2, 4)}, ValueError, r"block_out_channels must have 5 entries \(the latent has 1/16 of the"),
    *(
        (
            {"encoder_normalization": "smc", **network},
            ValueError,
            "encoder_normalization must be 'group_norm' unless both networks are UNets .here .*, got 'smc'",
        )
        for network in ({"extraction": "nafnet"}, {"aggregation": "vit"})
    ),
    (
        {"encoder_type": "dwt"},
        ValueError,
        "latent_channels must be 12 with encoder_type='dwt', whose latent is sub-bands",
    ),
    ({"encoder_type": "dwt-2"}, ValueError, "latent_channels must be 48 with encoder_type='dwt-2', .*, got 4"),
    *(
        (
            {"encoder_type": "dwt", "latent_channels": 12, **change},
            ValueError,
            f"{next(iter(change))} must be .* with encoder_type='dwt', which has no parameters, got ",
        )
        for change in (
            {"extraction": "nafnet"},
            {"shared_extraction": True},
            {"aggregation": "vit"},
            {"encoder_normalization": "none"},
            {"use_quant_conv": True},
        )
    ),
    (
        {"encoder_type": "dwt", "latent_channels": 12, "wavelet_levels": (2, 3)},
        ValueError,
        "wavelet_levels must have all levels to the last with encoder_type='dwt', which takes no choice of them, got",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD, ids=[str(case[0]) for case in BAD])
@pytest.mark.parametrize("build", [LiteVAEConfig, LiteVAE, lambda **arguments: LiteVAE.from_preset("S", **arguments)])
def test_bad_arguments_are_refused(build, arguments, error, message):
    with pytest.raises(error, match=message):
        build(**arguments)


def test_unknown_names_are_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="'latent_chanels' is no argument of LiteVAE; did you mean 'latent_channels'"):
        LiteVAE.from_preset("B", latent_chanels=4)
    with pytest.raises(ValueError, match="name must be one of 'S', 'B', 'M', 'L', got 'XL'"):
        LiteVAE.from_preset("XL")
    with pytest.raises(TypeError, match="name must be one of 'S', 'B', 'M', 'L', got 3"):
        LiteVAE.from_preset(3)  # type: ignore[arg-type]


def test_litevae_takes_the_fields_of_the_config_with_the_same_defaults():
    signature = inspect.signature(LiteVAE.__init__).parameters
    taken = {name: parameter.default for name, parameter in signature.items() if name != "self"}
    assert taken == {field.name: field.default for field in dataclasses.fields(LiteVAEConfig)}
    annotations = typing.get_type_hints(LiteVAE.__init__)
    assert {name: annotations[name] for name in taken} == typing.get_type_hints(LiteVAEConfig)


def test_the_baseline_takes_fields_of_the_config_with_the_same_defaults():
    """But for Stable Diffusion's 1x1 convolutions, and an encoder's widths, which LiteVAE does not have."""
    signature = inspect.signature(StableDiffusionVAE.from_architecture).parameters
    defaults = {field.name: field.default for field in dataclasses.fields(LiteVAEConfig)}
    different = {
        name: parameter.default for name, parameter in signature.items() if parameter.default != defaults.get(name)
    }
    assert different == {"use_quant_conv": True}
    assert signature.keys() - defaults.keys() == {"encoder_channels"}


def test_every_field_has_a_docstring():
    """The tables of configs/README.md are made from them."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(LiteVAEConfig)).body if isinstance(node, ast.ClassDef))
    documented = [
        node.target.id
        for node, after in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    ]
    assert documented == [field.name for field in dataclasses.fields(LiteVAEConfig)]


def test_what_follows_from_the_encoder():
    configs = {
        "f8": LiteVAEConfig(),
        "f4": LiteVAEConfig(wavelet_levels=(1, 2), block_out_channels=(8, 8, 8)),
        "f16": LiteVAEConfig(wavelet_levels=(4,), block_out_channels=(8,) * 5, encoder_normalization="smc"),
        "dwt": LiteVAEConfig(encoder_type="dwt", latent_channels=12, decoder_normalization="smc"),
    }
    found = {name: (config.downsampling, config.is_deterministic, config.has_smc) for name, config in configs.items()}
    assert found == {"f8": (8, False, False), "f4": (4, False, False), "f16": (16, False, True), "dwt": (8, True, True)}


def test_presets_are_those_of_tables_23_and_24():
    fields = ("extraction_channels", "extraction_multipliers", "aggregation_channels", "aggregation_multipliers")
    table = {name: tuple(getattr(config, field) for field in fields) for name, config in PRESETS.items()}
    assert table == {
        "S": (16, (1, 2, 2), 16, (1, 2, 2)),
        "B": (32, (1, 2, 3), 32, (1, 2, 3)),
        "M": (64, (1, 2, 4), 32, (1, 2, 3)),
        "L": (64, (1, 2, 4), 64, (1, 2, 4)),
    }
    assert preset("l") == PRESETS["L"]
    assert preset("m", latent_channels=16) == dataclasses.replace(PRESETS["M"], latent_channels=16)


def test_lists_become_tuples_so_that_json_gives_the_same_config():
    config = LiteVAEConfig(shift_factor=0.5, dropout=0, latent_channel_means=(0.0, -1.5, 2, 3))
    assert LiteVAEConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("normalization", "outer", "expected"),
    [
        ("group_norm", None, True),
        ("group_norm", False, False),
        ("smc", None, False),
        ("smc", True, True),
        ("none", None, False),
        ("none", True, True),
    ],
)
def test_outer_norm_follows_the_normalization_unless_it_is_given(normalization, outer, expected):
    config = LiteVAEConfig(decoder_normalization=normalization, decoder_outer_norm=outer)
    assert config.has_outer_norm is expected
