"""What an evaluation leaves on disk, and how one that was interrupted goes on.

results.json           every number, every choice of the protocol, versions, hashes
results.md             the same to read
scores.csv             the metrics of every image
report.html            one self-contained file with curves and a gallery
images/                the gallery's pictures
partial/               what an unfinished evaluation has measured; gone at the end
"""

import contextlib
import csv
import io
import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litevae.evaluation.latents import finite
from litevae_kernels.files import check_folder, write_text

Scores = Mapping[int, Mapping[str, float]]


class EvaluationFolder:
    """The files of one evaluation, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.json"
        self.markdown = path / "results.md"
        self.scores = path / "scores.csv"
        self.report = path / "report.html"
        self.images = path / "images"
        self.partial = path / "partial"
        self.request = self.partial / "request.json"

    @classmethod
    def open(cls, output: Path | None, default: Path, request: Mapping[str, Any]) -> "EvaluationFolder":
        """The folder of a new evaluation, or of an interrupted one that was told the same.

        Args:
            output: None: the first of `default`, default-2, default-3, ... that has no other evaluation.
            request: what the result depends on, as JSON has it.

        Raises:
            ValueError: nothing can be written there, or it has an evaluation that this one is not.
        """
        for number in itertools.count(1):
            path = output or (default if number == 1 else default.with_name(f"{default.name}-{number}"))
            folder = cls(path)
            check_folder("--output", path)
            problem = folder._problem(request)
            if not problem:
                break
            if output is not None:
                raise ValueError(f"--output must name an empty folder, got {path}, which {problem}; name another")
        folder.partial.mkdir(parents=True, exist_ok=True)
        write_text(folder.request, json.dumps(request, indent=2) + "\n")
        return folder

    def _problem(self, request: Mapping[str, Any]) -> str:
        """Why another evaluation may not write here; "" if it may."""
        if self.results.exists():
            return "holds a finished evaluation"
        if not self.request.exists():
            taken = [path for path in vars(self).values() if path not in (self.path, self.partial) and path.exists()]
            return f"holds {taken[0].name}" if taken else ""
        try:
            before = json.loads(self.request.read_text(encoding="utf-8"))
        except ValueError:
            return ""  # cut off before anything was measured
        changed = [key for key in {**before, **request} if before.get(key) != request.get(key)]
        if not changed:
            return ""
        old, new = before.get(changed[0]), request.get(changed[0])
        return f"holds an unfinished evaluation with another {changed[0]} ({old}, now {new})"

    @property
    def has_measured(self) -> bool:
        """Whether an unfinished evaluation has kept something of what it measured."""
        return any(path != self.request for path in self.partial.glob("*"))

    def state(self, size: int, rank: int) -> Path:
        """Where a process keeps what it has measured at a size."""
        return self.partial / f"{size}-process-{rank}.pt"

    def read_size(self, size: int) -> dict[str, Any] | None:
        """What `write_size` wrote, with integers as indices; None if that size is not done."""
        path = self.partial / f"{size}.json"
        if not path.is_file():
            return None
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in ("scores", "names"):
            content[key] = {int(index): value for index, value in content[key].items()}
        return content

    def write_size(self, size: int, result: Mapping[str, Any], scores: Scores, names: Mapping[int, str]) -> None:
        """A size that is done; what processes kept of it is deleted."""
        write_text(self.partial / f"{size}.json", json.dumps({"result": result, "scores": scores, "names": names}))
        for state in self.partial.glob(f"{size}-process-*.pt"):
            state.unlink()

    def write_scores(self, sizes: Mapping[int, Mapping[str, Any]]) -> None:
        """scores.csv: size, index, name and metrics of every image; `sizes` as `read_size` returns them."""
        text = io.StringIO()
        every = [scores for content in sizes.values() for scores in content["scores"].values()]
        metrics = list(dict.fromkeys(metric for scores in every for metric in scores))
        table = csv.writer(text)
        table.writerow(["size", "index", "name", *metrics])
        for size, content in sizes.items():
            for index, scores in sorted(content["scores"].items()):
                table.writerow([size, index, content["names"][index], *(scores.get(metric) for metric in metrics)])
        write_text(self.scores, text.getvalue())

    def discard_unused(self) -> None:
        """Delete what `open` made, if nothing was measured since."""
        if self.partial.is_dir() and not self.has_measured:
            shutil.rmtree(self.partial)
            with contextlib.suppress(OSError):  # it holds something else
                self.path.rmdir()

    def finish(self, results: Mapping[str, Any]) -> None:
        """results.json, with which the evaluation counts as finished."""
        write_text(self.results, json.dumps(finite(results), indent=2, allow_nan=False) + "\n")
        shutil.rmtree(self.partial)
