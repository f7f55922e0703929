"""What does the CUDA backend tell CUDA's driver, through the real cuda-core? Recorded by a driver that runs nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .. import children

GLOBAL, RELAXED = 0, 2
CONTEXTS = (100, 101)  # of the devices
STREAMS = (0, 71)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stub stands for Linux's libcuda.so.1")


class Recorded(NamedTuple):
    told: dict[str, Any]  # what the launches were given
    calls: list[dict[str, Any]]  # what the driver got

    def launches(self) -> list[dict[str, Any]]:
        return [call for call in self.calls if call["call"] == "launch"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    pytest.importorskip("cuda.core", reason="the package cuda-core is not installed")
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    folder, here = tmp_path_factory.mktemp("stub"), Path(__file__)
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([compiler, *options, str(here.with_name("libcuda_stub.c"))], check=True)
    # A process of its own: NVRTC, in this one, must not meet the stub.
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "LIBCUDA_STUB_CALLS": str(folder / "calls")}
    command = [sys.executable, "-m", "tests.kernels.launched_on_stub"]
    result = children.run(command, timeout=120, cwd=here.parents[2], env=environment)
    assert result.returncode == 0, result.stderr
    calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return Recorded(json.loads(result.stdout), calls)


def test_grid_block_and_the_bytes_of_the_arguments(recorded: Recorded) -> None:
    """Of every launch; pointers, None, 32- and 64-bit integers and floating point."""
    names = ("first", "again", "other device", "thread", "thread_again", "captured")
    told = [*(recorded.told[name] for name in names), *recorded.told["operators"]]
    got = [{key: launch[key] for key in ("grid", "block", "arguments")} for launch in recorded.launches()]
    assert got == told
    assert len(recorded.told["operators"]) > 12


def test_the_stream_and_the_context_are_the_devices(recorded: Recorded) -> None:
    """Also of a device that is not the current one, and in a thread that never used CUDA."""
    devices = [0, 0, 1, 0, 0, 0, *[1] * len(recorded.told["operators"])]
    for launch, device in zip(recorded.launches(), devices, strict=True):
        assert (launch["stream"], launch["context"]) == (STREAMS[device], CONTEXTS[device]), launch


def test_a_thread_sets_its_context_once(recorded: Recorded) -> None:
    threads = [call["thread"] for call in recorded.calls if call["call"] == "set context"]
    assert len(threads) == len(set(threads)) == 2


def test_kernels_are_loaded_once_a_device_while_a_graph_may_be_captured(recorded: Recorded) -> None:
    loads = [call for call in recorded.calls if call["call"] == "load" and call["code"] == "scale sm_90"]
    assert [(load["context"], load["mode"]) for load in loads] == [
        (CONTEXTS[0], RELAXED),
        (CONTEXTS[1], RELAXED),
        (CONTEXTS[0], RELAXED),
    ]
    # The last one's launch is in `allows_loading`, which is relaxed itself, and puts the mode back.
    modes = [launch["mode"] for launch in recorded.launches()]
    assert modes == [GLOBAL] * 5 + [RELAXED] + [GLOBAL] * len(recorded.told["operators"])


def test_a_kernel_is_found_by_its_symbol(recorded: Recorded) -> None:
    names = [call["name"] for call in recorded.calls if call["call"] == "kernel"]
    assert names[:2] == ["symbol of scale_kernel<float>"] * 2
    handles = {launch["kernel"] for launch in recorded.launches()[:2]}
    assert len(handles) == 1
