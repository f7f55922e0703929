"""Is `import litevae` light, quiet and without effect, and does torchvision import after its models?"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import litevae
from litevae import torchvision_shim


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(litevae.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_import_is_quiet_and_loads_nothing_heavy():
    heavy = ["diffusers", "torchvision", "matplotlib", "lpips", "skimage", "torchmetrics", "omegaconf"]
    loaded = run(f"import sys, litevae; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]"


def test_import_declares_no_operator_of_torchvision():
    """Neither do the kernels and the losses; the models do, where torchvision could not be imported otherwise."""
    code = "import torch, litevae, litevae_kernels, litevae.losses; print(hasattr(torch.ops.torchvision, 'nms'))"
    assert run(code) == "False"


def test_every_public_name_is_there_and_an_unknown_one_is_refused():
    assert {"LiteVAE", "StableDiffusionVAE", "build_discriminator", "AutoencoderLoss", "load_model"} <= {
        *litevae.__all__
    }
    assert sorted(itertools.chain(*litevae._NAMES_OF_MODULES.values())) == sorted(litevae.__all__)
    for name in litevae.__all__:
        assert getattr(litevae, name).__doc__, name
        assert name in dir(litevae)
    with pytest.raises(AttributeError, match=r"'litevae' has no attribute 'LitVAE'; it has .*LiteVAE"):
        litevae.LitVAE  # noqa: B018


def test_torchvision_imports_after_the_models():
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    code = "import litevae.models, torchvision; print(torchvision.transforms.functional.to_tensor is not None)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


def test_shim_declares_nothing_where_torchvision_has_its_operators(monkeypatch):
    class Declared(Exception):
        pass

    def declare(*arguments: object) -> None:
        raise Declared

    monkeypatch.setattr(torch.library, "Library", declare)
    monkeypatch.setattr(torchvision_shim, "_torchvision_folder", lambda: Path("torchvision"))
    monkeypatch.setattr(torchvision_shim, "_operators_declared", lambda: False)
    monkeypatch.setattr(torchvision_shim, "_operators_load", lambda folder: True)
    assert torchvision_shim.install() is False
    monkeypatch.setattr(torchvision_shim, "_operators_load", lambda folder: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert torchvision_shim.install() is False
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(Declared):
        torchvision_shim.install()
    monkeypatch.setattr(torchvision_shim, "_torchvision_folder", lambda: None)
    assert torchvision_shim.install() is False
