"""What a network costs: parameters, arithmetic and memory, counted on any device, also on meta tensors."""

import copy
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode


def multiply_accumulates(function: Callable[..., object], *inputs: Tensor) -> int:
    """Multiply-accumulates of the convolutions and matrix products, attention's among them, in `function(*inputs)`.

    torch.utils.flop_counter counts two operations for each. Meta tensors do.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function(*inputs)
    return counter.get_total_flops() // 2


def parameter_count(*modules: nn.Module | None) -> int:
    """Numbers in the parameters of all `modules`; None has none."""
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())


def copy_shapes(network: nn.Module, device: torch.device) -> Any:
    """A copy whose parameters and buffers are new tensors of the same shapes on `device`, made of nothing."""
    copies: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        copies[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(network, copies)


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive: `live_bytes` now, `peak_bytes` at the most.

    A storage counts once, however many views it has, from the operation that returns it until Python and PyTorch
    let go of it. Works on meta tensors, so no memory is needed and the count is the same on every machine. It does
    not see what an operation allocates and frees inside itself (workspaces), nor what an allocator rounds up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._storages: dict[int, weakref.finalize[[int, int], torch.UntypedStorage]] = {}

    def hold(self, tensors: Iterable[Any]) -> None:
        """Count `tensors` too, which existed before."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.hold(tree_iter(result))
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages[key] = weakref.finalize(storage, self._remove, key, size)
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _remove(self, key: int, size: int) -> None:
        del self._storages[key]
        self.live_bytes -= size


def peak_tensor_bytes(function: Callable[..., object], *inputs: Tensor, held: Iterable[Tensor] = ()) -> int:
    """Most bytes of tensors alive at once during `function(*inputs)`: inputs, `held` (parameters) and all it makes."""
    with LiveTensors() as tensors:
        tensors.hold([*inputs, *held])
        function(*inputs)
    return tensors.peak_bytes
