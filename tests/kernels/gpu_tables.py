"""The tables of GPU kernels in the READMEs of the operators' rooms, as the compilers make them without a GPU.

python -m tests.kernels.gpu_tables              JSON: the tables by room, and the rows that they are made of
python -m tests.kernels.gpu_tables --write      into the READMEs

The launches are those of real calls, up to the driver: LiteVAE-B's encoder, forward and backward, the wavelets of its
images, the weights of its decoder. It takes two minutes.
"""

import functools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    from tests.kernels import recorded_launches  # before Triton: not interpreted

import torch
from torch import Tensor

from litevae_kernels import haar_dwt2d, haar_idwt2d, nvrtc, smc_weight
from litevae_kernels.machine import version

from . import machine_code
from .machine_code import MachineCode

ROOMS = Path(nvrtc.__file__).parent
BEGIN, END = "<!-- GPU kernels, by `python -m tests.kernels.gpu_tables --write` -->", "<!-- end of GPU kernels -->"
BATCH, SIDE = 32, 256
WEIGHTS = ((512, 512, 3, 3), (256, 512, 3, 3), (128, 128, 3, 3))  # of the decoder
SMALL_BYTES = 2**20  # a launch that moves less takes as long as a launch takes
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.uint8: "uint8"}
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


Range = tuple[int, int] | None


class Launched(NamedTuple):
    """A launch, with `key` of its machine code."""

    kernel: str
    key: Any
    programs: int
    moved_bytes: int  # of all tensors that it is given

    @property
    def bytes_a_program(self) -> float:
        return self.moved_bytes / self.programs


class Row(NamedTuple):
    """All machine codes of one kernel for one kind of calls: their smallest and largest numbers."""

    backend: str
    kernel: str
    case: str
    warps: Range
    registers: Range
    shared_bytes: Range
    local_bytes: int  # the most
    blocks: Range  # on a multiprocessor
    instructions: Range  # of a warp
    issue_percent: dict[str, int]  # of the clocks of memory, the most, by GPU; {} for small launches


def cases(room: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Calls by name, for a backend; all tensors are on the device "meta"."""
    for dtype in (torch.float32, torch.bfloat16):
        if room == "group_norm_silu":
            model = recorded_launches.encoder(dtype)
            pixels = recorded_launches.image(BATCH, SIDE, SIDE, dtype)
            yield f"{SHORT[dtype]} channels_last", functools.partial(recorded_launches.update, model, pixels)
        for layout, memory_format in FORMATS.items():
            if room == "smc_conv2d":
                result = "" if dtype == torch.float32 else f" to {SHORT[dtype]}"
                yield f"fp32{result} {layout}", weights(torch.float32, dtype, memory_format)
            if room == "haar_dwt2d":
                yield f"{SHORT[dtype]} {layout}", wavelets(dtype, dtype, memory_format)
                if dtype == torch.bfloat16:
                    yield f"uint8 to bf16 {layout}", wavelets(torch.uint8, dtype, memory_format)


def wavelets(image_dtype: torch.dtype, dtype: torch.dtype, memory_format: Any) -> Callable[[str], None]:
    def call(backend: str) -> None:
        image = recorded_launches.image(BATCH, SIDE, SIDE, image_dtype).contiguous(memory_format=memory_format)
        with recorded_launches.AsOnCuda(backend):
            pyramid = haar_dwt2d(image, 3, dtype=dtype)
            if image_dtype == dtype:
                haar_idwt2d(pyramid)

    return call


def weights(dtype: torch.dtype, result: torch.dtype, memory_format: Any) -> Callable[[str], None]:
    def call(backend: str) -> None:
        for shape in WEIGHTS:
            weight = torch.empty(shape, dtype=dtype, device="meta").contiguous(memory_format=memory_format)
            scales, gain = torch.empty(shape[1], device="meta"), torch.empty((), device="meta")
            leaves = [tensor.requires_grad_() for tensor in (weight, scales, gain)]
            with recorded_launches.AsOnCuda(backend):
                smc_weight(*leaves, dtype=result).sum().backward()

    return call


def triton_rows(room: str, driver: Any) -> Iterator[Row]:
    codes: dict[int, MachineCode] = {}
    for case, call in cases(room):
        driver.launches.clear()
        with driver.active():
            call("triton")
        launches = []
        for one in driver.launches:
            compiled, key = one.compiled, id(one.compiled)
            if f".{room}." not in compiled.src.fn.__module__:
                continue
            if key not in codes:
                metadata = compiled.metadata
                codes[key] = machine_code.read(compiled.asm["cubin"], metadata.num_warps, metadata.shared)
            programs = one.grid[0] * one.grid[1] * one.grid[2]
            launches.append(Launched(one.kernel, key, programs, moved_bytes(one.arguments.values())))
        yield from rows("triton", case, launches, codes)


def cuda_rows(room: str) -> Iterator[Row]:
    recorded: dict[str, list[Launched]] = {}
    launch = nvrtc.launch
    try:
        for case, call in cases(room):
            launches = recorded[case] = []

            def record(
                operator: str, name: str, grid: Any, block: int, arguments: Any, device: Any, launches: Any = launches
            ) -> None:
                if operator != room:
                    return
                kernel = name.removeprefix("litevae::").partition("<")[0]
                programs = grid[0] * grid[1] * grid[2]
                launches.append(Launched(kernel, (name, block), programs, moved_bytes(arguments)))

            nvrtc.launch = record
            call("cuda")
    finally:
        nvrtc.launch = launch
    keys = sorted({one.key for launches in recorded.values() for one in launches})
    names = sorted({name for name, _ in keys})
    compiled = nvrtc.compile_kernels(room, names, f"sm_{machine_code.ARCHITECTURE}")
    symbols = dict(zip(names, compiled.symbols, strict=True))
    codes = {
        (name, block): machine_code.read(compiled.cubin, block // machine_code.WARP, 0, symbols[name])
        for name, block in keys
    }
    for case, launches in recorded.items():
        yield from rows("cuda", case, launches, codes)


def moved_bytes(arguments: Any) -> int:
    """Of every tensor once."""
    tensors = {id(one): one for one in arguments if isinstance(one, Tensor)}
    return sum(one.numel() * one.element_size() for one in tensors.values())


def rows(backend: str, case: str, launches: Sequence[Launched], codes: dict[Any, MachineCode]) -> Iterator[Row]:
    by_kernel: dict[str, list[Launched]] = defaultdict(list)
    for launched in launches:
        by_kernel[launched.kernel].append(launched)
    for kernel, same in by_kernel.items():
        # The largest launch of every machine code: repeated ones may be given pointers instead of tensors.
        largest = {one.key: one for one in sorted(same, key=lambda one: one.moved_bytes)}
        used = [codes[key] for key in largest]
        straight = [] if backend == "cuda" else list(largest.values())  # CUDA C++ branches
        large = [one for one in straight if one.moved_bytes >= SMALL_BYTES]
        yield Row(
            backend,
            kernel,
            case,
            extremes(code.warps for code in used),
            extremes(code.registers for code in used),
            extremes(code.shared_bytes for code in used),
            max(code.local_bytes for code in used),
            extremes(code.blocks for code in used),
            extremes(round(codes[one.key].instructions(one.bytes_a_program)) for one in straight),
            {
                gpu: max(round(100 * codes[one.key].issue_share(one.bytes_a_program, gpu)) for one in large)
                for gpu in machine_code.BYTES_A_CLOCK
                if large
            },
        )


def extremes(numbers: Iterator[int]) -> Range:
    found = list(numbers)
    return (min(found), max(found)) if found else None


def table(found: Sequence[Row]) -> str:
    gpus = list(machine_code.BYTES_A_CLOCK)
    lines = [
        BEGIN,
        f"{compilers()}Ranges are those of",
        "the sizes in LiteVAE-B. Blocks: programs that a multiprocessor holds at once. Issue / memory: clocks in which",
        "it issues a program's instructions, for each clock that the program's bytes take; not of launches that move",
        "less than 1 MiB, nor of CUDA C++, whose kernels branch.",
        "",
        "| backend | kernel | for | warps | registers | shared, bytes | blocks | instructions |"
        + "".join(f" issue / memory, {gpu} |" for gpu in gpus),
        "|---|---|---|--:|--:|--:|--:|--:|" + "--:|" * len(gpus),
    ]
    for row in found:
        numbers = (row.warps, row.registers, row.shared_bytes, row.blocks, row.instructions)
        shares = (f"{row.issue_percent[gpu]} %" if row.issue_percent else "" for gpu in gpus)
        cells = (f"`{row.backend}`", f"`{row.kernel}`", row.case, *map(written, numbers), *shares)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, END])


def written(numbers: Range) -> str:
    return "" if numbers is None else "-".join(map(str, sorted(set(numbers))))


def compilers() -> str:
    return f"By Triton {version('triton')} and NVRTC {nvrtc._version()}, for sm_{machine_code.ARCHITECTURE}. "


def written_table(room: str) -> str:
    """The table in a room's README, with its marks."""
    text = (ROOMS / room / "README.md").read_text()
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def write_table(room: str, text: str) -> None:
    readme = ROOMS / room / "README.md"
    readme.write_text(readme.read_text().replace(written_table(room), text))


def main() -> None:
    driver = recorded_launches.RecordingDriver(machine_code.ARCHITECTURE, compiles=True)
    names = sorted(path.parent.name for path in nvrtc.sources().glob("*/cuda.cu"))
    found = {room: [*triton_rows(room, driver), *cuda_rows(room)] for room in names}
    tables = {room: table(room_rows) for room, room_rows in found.items()}
    if "--write" in sys.argv:
        for room, text in tables.items():
            write_table(room, text)
    else:
        every = [row._asdict() for room_rows in found.values() for row in room_rows]
        print(json.dumps({"tables": tables, "rows": every}))


if __name__ == "__main__":
    main()
