"""Where do Triton kernels run in the tests, and which tests need a GPU?"""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before the first import of triton: kernels run on CPU tensors


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(item, "callspec", None)
        if torch.cuda.is_available():
            if parameters is not None and parameters.params.get("backend") == "triton":
                item.add_marker("gpu")  # runs on CUDA tensors here, on CPU tensors in the interpreter elsewhere
        elif "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
