"""Does a run folder give back what was written to it?"""

import json
import os
from pathlib import Path

import pytest

from litevae.runs import run_folder
from litevae.runs.config import ConfigError
from litevae.runs.recipes import load_config
from litevae.runs.run_folder import RunFolder
from litevae.training.config import RunConfig


def test_written_config_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(
        RunConfig, "quickstart", ["train.mixed_precision=fp16", "model.dropout=0.1", f"run.dir={tmp_path}/run"]
    )
    folder = RunFolder(tmp_path / "run")
    folder.create(config, ["test"])
    assert folder.read_config(RunConfig) == config
    assert load_config(RunConfig, str(folder.config)) == config
    resumed = folder.read_config(RunConfig, ["data.source=folder", "data.path=0123", "train.steps=9"])
    assert (resumed.data.path, resumed.train.steps) == ("0123", 9)


def test_config_of_an_older_version_means_what_it_meant(tmp_path: Path) -> None:
    """Where it lacks a key whose default is another one today."""
    folder = RunFolder(tmp_path / "run")
    folder.create(load_config(RunConfig, "quickstart", [f"run.dir={folder.path}"]), ["test"])
    assert folder.read_config(RunConfig).data.holdout_rule == "hash"
    text = folder.config.read_text(encoding="utf-8")
    folder.config.write_text(text.replace("  holdout_rule: hash\n", ""), encoding="utf-8")
    assert folder.read_config(RunConfig).data.holdout_rule == "last"
    assert folder.read_config(RunConfig, ["data.holdout_rule=hash"]).data.holdout_rule == "hash"
    assert load_config(RunConfig, str(folder.config)).data.holdout_rule == "hash"  # a recipe, for a new run
    folder.config.write_text("train: {}\nrun: {}\n", encoding="utf-8")
    assert folder.read_config(RunConfig).data.holdout_rule == "last"
    folder.config.write_text("data: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="data must be a mapping of keys, got 3"):
        folder.read_config(RunConfig)


def test_versions_of_a_copy_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "commit", lambda: None)
    monkeypatch.setattr(run_folder, "processor", lambda: "A processor")
    folder = RunFolder(tmp_path / "run")
    folder.create(load_config(RunConfig, "quickstart", [f"run.dir={folder.path}"]), ["test"])
    versions = json.loads(folder.versions.read_text(encoding="utf-8"))
    assert versions["commit"] is None
    assert versions["machine"]["processor"] == f"{os.cpu_count()} x A processor"
