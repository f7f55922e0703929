"""What the parts said: summary.json after every command, a table of it, and one archive."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from litevae_kernels.files import replacing

NAME = "summary.json"
OK, FAILED, CUT_OFF, SKIPPED = "ok", "failed", "cut off", "skipped"
NOT_ENDED, NO_TIME = "not ended", "no time left"  # begun, and perhaps killed; all parts' time was over: run again

LARGEST_PACKED_BYTES = 4 * 2**20
# What a run leaves that is large and can be made again: checkpoints, models, a profiler's own files.
NOT_PACKED = (".pt", ".safetensors", ".nsys-rep", ".qdstrm", ".sqlite", ".ncu-rep", ".part", ".tmp")
WIDEST = 88  # characters of what a command said last


class Summary:
    """The entries of DIR/summary.json: one for each command of each part, as it stood last."""

    def __init__(self, folder: Path, conditions: Mapping[str, str]) -> None:
        self.folder, self._conditions = folder, conditions
        self.entries: list[dict[str, Any]] = read(folder)

    def begin(self, part: str, step: str, command: str, log: str) -> None:
        """A command starts. Should this process die, its entry stays "not ended"."""
        self._put(part, step, outcome=NOT_ENDED, command=command, log=log)

    def end(self, part: str, step: str, outcome: str, **facts: Any) -> None:
        """`facts`: exit_code, seconds, reason, said."""
        before = self._of(part, step)
        kept = {key: before[key] for key in ("command", "log") if before and before["outcome"] == NOT_ENDED}
        self._put(part, step, outcome=outcome, **kept, **facts)

    def has_ended(self, part: str) -> bool:
        """Whether nothing of the part is left to do."""
        own = [entry for entry in self.entries if entry["part"] == part]
        return bool(own) and all(entry["outcome"] not in (NOT_ENDED, NO_TIME) for entry in own)

    def has_failed(self, parts: Collection[str]) -> bool:
        """Whether a command of one of `parts` did not end well."""
        return any(entry["outcome"] not in (OK, SKIPPED) for entry in self.entries if entry["part"] in parts)

    def table(self) -> str:
        """All entries, aligned."""
        lines = [("part", "outcome", "seconds", "")]
        for entry in self.entries:
            name = f"{entry['part']}: {entry['step']}" if entry["step"] else entry["part"]
            seconds = f"{entry['seconds']:.0f}" if "seconds" in entry else ""
            lines.append((name, entry["outcome"], seconds, entry.get("reason") or entry.get("said", "")))
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        return "\n".join(
            f"{name:<{widths[0]}}  {outcome:<{widths[1]}}  {seconds:>{widths[2]}}  {said}".rstrip()
            for name, outcome, seconds, said in lines
        )

    def _of(self, part: str, step: str) -> dict[str, Any] | None:
        return next((entry for entry in self.entries if (entry["part"], entry["step"]) == (part, step)), None)

    def _put(self, part: str, step: str, **facts: Any) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        entry = {"part": part, "step": step, **facts, "at": now, **self._conditions}
        before = self._of(part, step)
        if before is None:
            self.entries.append(entry)
        else:
            self.entries[self.entries.index(before)] = entry
        write(self.folder / NAME, self.entries)


def read(folder: Path) -> list[dict[str, Any]]:
    """The entries of an earlier call, which this one goes on with."""
    path = folder / NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write(path: Path, entries: object) -> None:
    """Replace the file at once: a reader, or a crash, finds the old one or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def said(log: Path) -> str:
    """The last line of a log that says something: pytest's and compute-sanitizer's totals, an error's message."""
    lines = (line.strip(" =\n") for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()))
    last = next((line for line in lines if line), "")
    return last if len(last) <= WIDEST else f"{last[: WIDEST - 3]}..."


def pack(folder: Path, archive: Path) -> list[str]:
    """Everything in `folder` that is worth keeping, as one tar.gz. Returns what was left out for its size."""
    left_out = []
    with replacing(archive) as temporary, tarfile.open(temporary, "w:gz") as tar:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.suffix in NOT_PACKED or path.resolve() == archive.resolve():
                continue
            name = path.relative_to(folder)
            if path.stat().st_size > LARGEST_PACKED_BYTES:
                left_out.append(f"{name} ({path.stat().st_size / 2**20:.0f} MiB)")
                continue
            tar.add(path, Path(archive.name.partition(".")[0]) / name)
    return left_out
