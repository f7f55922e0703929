"""Does a run folder give back what was written to it?"""

from pathlib import Path

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
