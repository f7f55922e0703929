"""Launches of Triton kernels that cost the host little: what a kernel was compiled to is kept, and launched directly.

At every call `kernel[grid](...)` binds the arguments, makes a key of their types, values and alignment, and looks up
what it compiled for them: 16 us, beside 2 for the launch. A `Launch` does that once.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

ALIGNMENT = 16  # bytes; Triton compiles another kernel for a pointer that is not a multiple of it


class Launch:
    """A kernel with all that it is given but its tensors.

        launch = Launch(kernel, programs, (sizes, splits), {"BLOCK": 64}, num_warps=8)
        launch(x, None, output)

    The kernel's parameters are its tensors, then `numbers` (integers, or named tuples of them), then the compile-time
    `constants`, in this order. None stands for an absent tensor.

    Every call must give tensors of the same dtypes, absent in the same places, on the same device, which must be the
    current one: whoever keeps a Launch makes these part of its key. Where a pointer is not aligned, and in Triton's
    interpreter, the launch is Triton's own.
    """

    def __init__(
        self, kernel: Any, programs: int, numbers: tuple[Any, ...], constants: dict[str, Any], num_warps: int = 4
    ) -> None:
        assert tuple(constants) == tuple(kernel.arg_names[-len(constants) :]), (kernel.arg_names, constants)
        self.kernel, self.grid, self.numbers = kernel, (programs, 1, 1), numbers
        self.constants, self.num_warps = constants, num_warps
        self._fixed = (*numbers, *constants.values())
        self._run: Callable[..., None] | None = None  # launches what was compiled for aligned tensors

    def __call__(self, *tensors: Tensor | None) -> None:
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        bits = 0
        for pointer in pointers:
            bits |= pointer or 0
        if bits % ALIGNMENT:
            self._launch(tensors)
        elif self._run is not None:
            self._run(*pointers, *self._fixed)
        else:
            compiled = self._launch(tensors)
            if compiled is not None:  # the interpreter compiles nothing
                self._run = compiled[self.grid]

    def _launch(self, tensors: tuple[Tensor | None, ...]) -> Any:
        return self.kernel[self.grid](*tensors, *self.numbers, **self.constants, num_warps=self.num_warps)
