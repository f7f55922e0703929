"""What does a kernel's machine code for an H100 or H200 (sm_90) ask of a multiprocessor?

NVIDIA's cuobjdump and nvdisasm, which Triton's package brings, read the code; nothing here needs a GPU.

Issue against memory: a multiprocessor issues four warps' instructions a clock, and has its share of the memory's rate,
`BYTES_A_CLOCK`. A program has the instructions outside its main loop, the one with the most accesses to memory, and
those of the loop as often as it takes to move the program's bytes. Other loops count once, and so does each side of a
branch: right for Triton's kernels, which hardly branch, but not for those of CUDA C++.
"""

import functools
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

ARCHITECTURE = 90
BYTES_A_CLOCK = {"H100": 12.95, "H200": 18.6}  # read and written, for each of 132 multiprocessors at 1.755 GHz
ISSUED_A_CLOCK = 4
WARP = 32
MOST_WARPS, MOST_BLOCKS = 64, 32  # on a multiprocessor
REGISTERS = 65536 // ISSUED_A_CLOCK  # of each of its four parts
REGISTERS_AT_ONCE = 256  # that a warp gets
SHARED_BYTES, RESERVED_SHARED_BYTES = 228 * 1024, 1024  # the latter for every block


class Loop(NamedTuple):
    instructions: int
    accessed_bytes: int  # of global memory, by one thread each time


class MachineCode(NamedTuple):
    """Of one kernel; `once` are the instructions outside the main loop."""

    registers: int
    local_bytes: int
    shared_bytes: int
    warps: int  # of a program
    once: int
    loop: Loop

    @property
    def blocks(self) -> int:
        """Programs, or blocks of threads, that a multiprocessor holds at once."""
        for_a_warp = math.ceil(self.registers * WARP / REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
        by_registers = REGISTERS // for_a_warp * ISSUED_A_CLOCK // self.warps
        by_shared_memory = SHARED_BYTES // (self.shared_bytes + RESERVED_SHARED_BYTES)
        return min(by_registers, by_shared_memory, MOST_WARPS // self.warps, MOST_BLOCKS)

    def instructions(self, program_bytes: float) -> float:
        """That each warp of a program issues."""
        if self.loop.accessed_bytes == 0:
            return self.once
        return self.once + self.loop.instructions * program_bytes / (self.loop.accessed_bytes * WARP * self.warps)

    def issue_share(self, program_bytes: float, gpu: str) -> float:
        """Clocks of issue for each clock of memory."""
        issue = self.instructions(program_bytes) * self.warps / ISSUED_A_CLOCK
        return issue * BYTES_A_CLOCK[gpu] / program_bytes


def read(cubin: bytes, warps: int, shared_bytes: int, symbol: str | None = None) -> MachineCode:
    """The code of a kernel; `symbol` names it where the cubin has several. `shared_bytes`: that the launch adds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        usage, text = output("cuobjdump", "--dump-resource-usage", path), output("nvdisasm", "-c", path)
    if symbol is not None:
        usage = re.findall(rf"Function {symbol}:\s*(.*)", usage)[0]
        text = re.findall(rf"\.section\s+\.text\.{symbol},(.*?)(?=\.section\s|\Z)", text, flags=re.DOTALL)[0]
    resources = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", usage)}
    once, loop = split_at_loop(text)
    static = max(0, resources["SHARED"] - RESERVED_SHARED_BYTES)  # which cuobjdump counts where there is any
    local_bytes = resources["STACK"] + resources["LOCAL"]
    return MachineCode(resources["REG"], local_bytes, static + shared_bytes, warps, once, loop)


def split_at_loop(text: str) -> tuple[int, Loop]:
    """The instructions outside the main loop, and the loop, of nvdisasm's text."""
    instructions, labels, loops = [], {}, []
    for label, instruction in re.findall(r"^(?:(\.L_x_\d+):|\s*/\*[0-9a-f]{4,}\*/\s*([^;]*);)", text, re.MULTILINE):
        if label:
            labels[label] = len(instructions)
            continue
        target = labels.get(next(iter(re.findall(r"BRA.*\(?(\.L_x_\d+)", instruction)), ""))
        if target == len(instructions):
            break  # a branch to itself ends the kernel; what follows are rare cases of a division
        instructions.append(instruction)
        if target is not None:
            loops.append(instructions[target:])
    found = [Loop(len(body), sum(map(_accessed_bytes, body))) for body in loops]
    main = max(found, key=lambda loop: (loop.accessed_bytes, -loop.instructions), default=Loop(0, 0))
    return len(instructions) - (main.instructions if main.accessed_bytes else 0), main


def _accessed_bytes(instruction: str) -> int:
    access = re.search(r"\b(?:LDGSTS|LDG|STG)\b((?:\.\w+)*)", instruction)
    if access is None:
        return 0
    parts = access.group(1).split(".")
    narrow = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
    return next((narrow[part] for part in parts if part in narrow), 4)


@functools.cache
def tool(name: str) -> str | None:
    """One of NVIDIA's, from PATH or from triton's package."""
    beside_triton = Path(torch.__file__).parents[1] / "triton/backends/nvidia/bin"
    return shutil.which(name) or shutil.which(name, path=str(beside_triton))


def output(name: str, *arguments: object) -> str:
    command = [str(tool(name)), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
    return result.stdout
