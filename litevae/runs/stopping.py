"""Stopping on a signal: after Ctrl-C, a cluster's SIGTERM or a lost connection a run finishes its step and is saved."""

import contextlib
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from tqdm import tqdm

# Of Ctrl-C, of a cluster, of a terminal that closes; Windows has no SIGHUP.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopRequest:
    """While this context is open, SIGINT, SIGTERM and SIGHUP set `signal`; a second Ctrl-C acts at once, as usual.

    Further signals change nothing: a cluster may send SIGTERM both to a launcher and to its processes, which then
    get it twice. A signal that the program was started to ignore (nohup) stays ignored.
    """

    def __init__(self, notice: str = "stopping after this step; the run will be saved") -> None:
        """`notice`: what is said when a signal comes."""
        self.signal: int | None = None
        self._notice = notice
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells have it: 129 for SIGHUP, 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGTERM)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python hands signals to no other thread
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
        with contextlib.suppress(OSError):  # a closed pipe: Ctrl-C also ends `tee` in `... | tee log`
            tqdm.write(self._notice, file=sys.stderr)
