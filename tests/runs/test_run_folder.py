"""Does a run folder give back what was written to it?"""

import json
import os
from pathlib import Path

import pytest

from litevae.runs import run_folder
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


def test_versions_of_a_copy_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "commit", lambda: None)
    monkeypatch.setattr(run_folder, "processor", lambda: "A processor")
    folder = RunFolder(tmp_path / "run")
    folder.create(load_config(RunConfig, "quickstart", [f"run.dir={folder.path}"]), ["test"])
    versions = json.loads(folder.versions.read_text(encoding="utf-8"))
    assert versions["commit"] is None
    assert versions["machine"]["processor"] == f"{os.cpu_count()} x A processor"
