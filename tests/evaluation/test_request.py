"""Is the command line read as its help says, and is what is wrong with it named before torch is imported?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from litevae import data
from litevae.evaluation import request
from litevae.evaluation.catalogue import METRICS
from litevae.evaluation.request import Comparison, Request, parse


def test_a_request_has_what_was_typed():
    words = "runs/a photographs --sizes 64,32,64 --metrics ssim,lpips,psnr --sample --output there --images 7 --label A"
    read = parse(words.split())
    assert isinstance(read, Request)
    assert (read.model, read.data, read.sizes) == ("runs/a", "photographs", (32, 64))
    assert read.metrics == ("psnr", "ssim", "lpips-vgg", "lpips-alex")
    assert (read.sample, read.output, read.images, read.label) == (True, Path("there"), 7, "A")
    plain = parse(["a", "b"])
    assert isinstance(plain, Request)
    assert (plain.metrics, plain.sizes, plain.sample, plain.protocol) == (None, (256,), False, "ldm")
    assert plain.images is plain.output is plain.label is plain.workers is None


def test_a_comparison_has_its_files():
    assert parse(["--compare", "a", "b", "--output", "c"]) == Comparison((Path("a"), Path("b")), Path("c"))


def test_the_protocols_are_those_of_the_data():
    assert set(request.PROTOCOLS) == set(data.PROTOCOLS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "MODEL and DATA are needed"),
        ("a", "DATA is needed after MODEL 'a', e.g. photographs"),
        ("a b --metrics psnr,fid", "argument --metrics: must be of psnr, ssim, lpips-vgg, .*, lpips, got 'fid'"),
        ("a b --metrics psnr,", "argument --metrics: must be of .*, got ''"),
        ("a b --sizes 64,8", "argument --sizes: must be at least 16, got 8"),
        ("a b --sizes 64,x", "argument --sizes: must be a whole number, at least 1, got x"),
        ("a b --images 0", "argument --images: must be a whole number, at least 1, got 0"),
        ("a b --workers -1", "argument --workers: must be a whole number, at least 0, got -1"),
        ("a b --protocol clip", "argument --protocol: invalid choice: 'clip'"),
        ("a b --sample --mode", "argument --mode: not allowed with argument --sample"),
        ("--compare a", "--compare needs two results.json files or more"),
        ("a --compare b c", "--compare reads results.json files: leave out MODEL 'a'"),
    ],
)
def test_what_is_wrong_is_named(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        parse(words.split())
    assert stopped.value.code == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_the_help_lists_every_metric_and_comes_without_torch():
    program = "import sys\nfrom litevae import evaluate\ntry:\n    evaluate.main(['--help'])\nfinally:\n    "
    program += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in METRICS)
