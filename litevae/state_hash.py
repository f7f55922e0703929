"""Which weights are these? A hash of tensors by name, whatever their place and memory format."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def state_hash(network: nn.Module) -> str:
    """ "sha256:..." of a network's whole state: names, dtypes, shapes and values, wherever it lies in memory."""
    return tensors_hash(network.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """ "sha256:..." of tensors by name: names, dtypes, shapes and values, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"
