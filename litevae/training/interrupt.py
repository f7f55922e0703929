"""How does Ctrl-C end a run without losing it? The step in progress is finished, then the run is saved.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from tqdm import tqdm


class StopRequest:
    """While this context is open, Ctrl-C sets `requested`; a second Ctrl-C interrupts at once, as usual."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python hands signals to no other thread
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        tqdm.write("stopping after this step; the run will be saved", file=sys.stderr)
