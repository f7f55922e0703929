"""A module's forward as CUDA graphs: the kernels of one call, recorded once and launched together from then on.

A launch costs the CPU microseconds, and an encode has hundreds of them; a replay is one. Nothing is compiled.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

MOST_GRAPHS = 8  # kinds of input that a module keeps graphs for; the one used longest ago goes first
WARM_UP_CALLS = 3  # compile kernels, choose cuDNN's algorithms, make workspaces: none of it may be recorded


class CudaGraphs:
    """`module`, of one tensor to one tensor, by a graph for every kind of input: shape, strides, dtype, autocast.

    The result is the module's, in memory of its own. Weights may change in place; where one is moved or replaced, or
    a module is or changes its mode, the graphs are recorded anew. torch's switches (TF32, deterministic algorithms) and
    the operators' backend are those of the recording. Forward hooks run while a graph is recorded, not when it is
    replayed. The module itself is called where no graph can be: under a gradient, torch.func, torch.compile, a dispatch
    mode or another capture, and for an empty batch or one that is not on a GPU. Calls of several threads and streams
    take turns.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._graphs: OrderedDict[Any, _Graph] = OrderedDict()
        self._places: list[int] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        """A copy records graphs of its own."""
        return CudaGraphs, (self.module,)

    def __call__(self, batch: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not _may_be_recorded(batch):
            return self._eager(batch)
        places, needs_grad = _weights_of(self.module)
        autocast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
        if torch.is_grad_enabled() and (needs_grad or batch.requires_grad):
            return self._eager(batch)
        if autocast and needs_grad:  # autocast keeps copies of such weights, and a graph would go on reading them
            return self._eager(batch)
        kind = batch.shape, batch.stride(), batch.dtype, batch.device, autocast
        with self._lock, torch.cuda.device(batch.device):
            if places != self._places:
                self._forget(len(self._graphs))
                # All graphs work in the same memory, since only one of them is replayed at a time.
                self._places, self._pool, self._replayed = places, torch.cuda.graph_pool_handle(), torch.cuda.Event()
                self._stream = torch.cuda.Stream()  # one, since libraries keep a workspace for every stream
            if kind not in self._graphs:
                self._forget(len(self._graphs) + 1 - MOST_GRAPHS)
                self._graphs[kind] = _Graph(self.module, batch, self._pool, self._stream)
            self._graphs.move_to_end(kind)
            torch.cuda.current_stream().wait_event(self._replayed)  # on another stream, perhaps
            result = self._graphs[kind].replay(batch)
            self._replayed.record()
        return result

    def _eager(self, batch: Tensor) -> Tensor:
        result: Tensor = self.module(batch)
        return result

    def _forget(self, count: int) -> None:
        """The graphs used longest ago, none of which may be running when its memory is freed."""
        if count > 0:
            self._replayed.synchronize()
        for _ in range(count):
            self._graphs.popitem(last=False)


class _Graph:
    """One recorded call, and the memory that it reads and writes."""

    def __init__(self, module: nn.Module, batch: Tensor, pool: Any, stream: Any) -> None:
        caller = torch.cuda.current_stream()
        with torch.inference_mode(False), torch.no_grad():  # inference tensors could not be written to later
            self.batch = torch.empty_like(batch)
            self.batch.copy_(batch)
            stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_CALLS):
                    module(self.batch)
            caller.wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self.result = module(self.batch)

    def replay(self, batch: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            self.batch.copy_(batch)
            self.graph.replay()
        return self.result.clone()


def _may_be_recorded(batch: Tensor) -> bool:
    return (
        type(batch) is Tensor
        and batch.is_cuda
        and batch.numel() > 0
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and not torch.cuda.is_current_stream_capturing()
    )


def _weights_of(module: nn.Module) -> tuple[list[int], bool]:
    """Which modules there are, in which mode, and where their weights lie; whether one needs a gradient.

    `module.parameters()` would take ten times as long, at every call.
    """
    places: list[int] = []
    needs_grad = False
    waiting: list[nn.Module | None] = [module]
    while waiting:
        one = waiting.pop()
        if one is not None:
            places += (id(one), one.training)
            for weight in (*one._parameters.values(), *one._buffers.values()):
                if weight is not None:
                    places.append(weight.data_ptr())
                    needs_grad |= weight.requires_grad
            waiting += one._modules.values()
    return places, needs_grad
