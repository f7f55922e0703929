"""Does the hash of weights depend on names, dtypes, shapes and values, and on nothing else?"""

import hashlib

import torch
from torch import Tensor, nn

from litevae.state_hash import state_hash, tensors_hash


def hashed(tensors: dict[str, Tensor]) -> str:
    """The definition of `tensors_hash`, for tensors of rank 1."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(f"{name} {values.dtype} [{len(values)}]\n".encode() + values.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def test_the_hash_is_of_names_dtypes_shapes_and_values() -> None:
    state = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([3])}
    assert tensors_hash(state) == hashed(state)
    others = [
        {"c": state["b"], "a": state["a"]},
        {**state, "b": state["b"].view(2, 1)},
        {**state, "b": state["b"].view(torch.int32)},
        {**state, "b": torch.tensor([1.0, 2.0000002])},
    ]
    assert len({tensors_hash(one) for one in [state, *others]}) == 5


def test_the_hash_of_a_network_does_not_depend_on_its_memory_format() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))  # the counter of batches has rank 0
    before = state_hash(network)
    assert state_hash(network.to(memory_format=torch.channels_last)) == before
    assert state_hash(network.bfloat16()) != before
