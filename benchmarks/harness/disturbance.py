"""Did other processes use the cores while a table was measured? Then its times are theirs, too."""

import os
from pathlib import Path
from time import monotonic

ALLOWED = 0.03  # of the cores' time: what a quiet machine does by itself
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PROC = Path("/proc")


class Watch:
    """What others have taken since it was made or asked last."""

    def __init__(self) -> None:
        self._since_s, self._others_s = monotonic(), others_s()

    def disturbance(self) -> str:
        """A sentence for the conditions of a table; "" of a quiet machine, and where there is no /proc."""
        before_s, before = self._since_s, self._others_s
        self._since_s, self._others_s = monotonic(), others_s()
        if before is None or self._others_s is None:
            return ""
        share = (self._others_s - before) / max(self._since_s - before_s, 1e-9) / (os.cpu_count() or 1)
        return f"by other processes, which took {share:.0%} of the cores' time" if share > ALLOWED else ""


def others_s() -> float | None:
    """Seconds of all cores that went to neither this process nor its descendants, since the machine was started."""
    try:
        user, nice, system, _, _, *interrupts_and_steal = map(int, (PROC / "stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + sum(interrupts_and_steal) - _own_ticks()) / TICKS_A_SECOND


def _own_ticks() -> int:
    """Of this process and its descendants, those that have ended and been waited for among them."""
    parents, ticks = {}, {}
    for folder in PROC.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    own = {os.getpid()}
    while found := {process for process, parent in parents.items() if parent in own} - own:
        own |= found
    return sum(ticks.get(process, 0) for process in own)
