"""Where do Triton kernels run in the tests, which tests need a GPU, and which need packages beyond torch and pytest?"""

import importlib.util
import os
from collections import Counter

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the workers share the cores; before the first import of torch
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before the first import of triton: kernels run on CPU tensors

# The operators' own tests need torch, numpy, triton and pytest alone, so that they run on any GPU machine.
NEEDED_PACKAGES = {
    "benchmarks": ["diffusers", "pytest_benchmark", "ptwt"],
    "data": ["datasets", "skimage", "PIL"],
    "demo_page": ["datasets", "diffusers", "matplotlib", "omegaconf", "skimage", "PIL"],
    "distillation": ["accelerate", "datasets", "diffusers", "matplotlib", "omegaconf", "skimage", "tensorboard"],
    "exporting": ["diffusers", "onnx", "onnxruntime", "onnxscript"],
    "test_export.py": ["diffusers"],
    "kernels/test_decompositions.py": ["pywt"],
    "kernels/test_compat.py": ["ptwt", "pywt"],
    "kernels/test_haar_dwt2d_pywavelets.py": ["pywt", "hypothesis"],
    "losses": ["diffusers", "lpips", "scipy", "ptwt"],
    "models": ["diffusers", "pywt", "safetensors", "scipy"],
    "test_config.py": ["diffusers"],
    "test_examples.py": ["diffusers", "ptwt"],
    "test_loading.py": ["accelerate", "datasets", "diffusers", "omegaconf", "tensorboard"],
    "evaluation": [
        "accelerate",
        "diffusers",
        "lpips",
        "matplotlib",
        "ptwt",
        "skimage",
        "torch_fidelity",
        "torchmetrics",
    ],
    "test_evaluate.py": ["accelerate", "diffusers", "lpips", "matplotlib", "skimage", "torch_fidelity"],
    "runs": ["accelerate", "datasets", "omegaconf", "tensorboard"],
    "training": ["accelerate", "datasets", "diffusers", "matplotlib", "omegaconf", "skimage", "tensorboard"],
}
INTERPRETED_EVERY = 7  # case of a test, unless -m slow: Triton interpreted and CUDA emulated take seconds
MISSING = {
    path: [package for package in packages if importlib.util.find_spec(package) is None]
    for path, packages in NEEDED_PACKAGES.items()
}
collect_ignore = [path for path, packages in MISSING.items() if packages]


def pytest_report_header() -> list[str]:
    return [f"tests/{path} left out: not installed: {', '.join(MISSING[path])}" for path in collect_ignore]


@pytest.hookimpl(tryfirst=True)  # before pytest's own selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    cases: Counter[tuple[str, str]] = Counter()
    for item in items:
        parameters = getattr(item, "callspec", None)
        backend = parameters.params.get("backend") if parameters is not None else None
        if torch.cuda.is_available():
            if backend in ("triton", "cuda"):
                item.add_marker("gpu")  # runs on CUDA tensors here, on CPU tensors elsewhere: interpreted, emulated
        elif "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        elif backend in ("triton", "cuda"):
            if cases[item.nodeid.partition("[")[0], backend] % INTERPRETED_EVERY:
                item.add_marker("slow")
            cases[item.nodeid.partition("[")[0], backend] += 1
