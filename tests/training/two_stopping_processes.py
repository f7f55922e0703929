"""What a run in two processes does that hears a signal in one, for test_processes.py. Not a test by itself.

    torchrun --nproc-per-node 2 two_stopping_processes.py RECIPE OVERRIDE...

Process 1 comes late to the start, and alone hears SIGTERM, in its third step. Every evaluation is made the best.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from litevae import train
from litevae.evaluation.held_out import Evaluation
from litevae.losses.total import AutoencoderLoss
from litevae.training import trainer


def main() -> int:
    if os.environ["RANK"] == "1":
        forward, start, count = AutoencoderLoss.forward, trainer.Trainer.open, iter(range(1, 1000))

        def interrupted(*args: Any, **options: Any) -> Any:
            if next(count) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return forward(*args, **options)

        def late(run: trainer.Trainer) -> None:
            time.sleep(2)
            start(run)

        AutoencoderLoss.forward, trainer.Trainer.open = interrupted, late  # type: ignore[method-assign]
    evaluate, psnr = trainer.evaluate, iter(range(1, 1000))

    def improving(*args: Any, **options: Any) -> Evaluation:
        measured = evaluate(*args, **options)
        better = float(next(psnr))
        return Evaluation([replace(image, psnr=better) for image in measured.images])

    trainer.evaluate = improving  # type: ignore[attr-defined]
    return train.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
