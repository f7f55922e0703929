"""The rooms of the house, which way imports go between them, and the names that CONTRIBUTING.md promises.

A new room needs a row in `ROOMS`, and a sentence in CONTRIBUTING.md.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import litevae

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("litevae_kernels", "litevae", "benchmarks")

# Every room of litevae with those that it may import, beside litevae_kernels and the modules of FOUNDATION.
ROOMS = {
    "models": set(),
    "losses": {"models"},
    "data": set(),
    "runs": set(),
    "evaluation": {"models", "losses", "data", "runs"},
    "latent_cache": {"models", "data", "runs", "evaluation"},
    "training": {"models", "losses", "data", "runs", "evaluation"},
    "diffusion": {"models", "losses", "data", "runs", "evaluation", "latent_cache"},
    "exporting": {"models"},
    "distillation": {"models", "losses", "data", "runs", "evaluation"},
    "paper_tables": {"data", "runs", "evaluation", "training"},
    "demo_page": {"data", "evaluation"},
}
FOUNDATION = {"__init__", "config", "checks", "seeds", "pixels", "cost", "state_hash", "torchvision_shim"}
LOADING = {"loading"}  # finds out which class wrote a folder: reads models and runs
COMMANDS = {
    "train",
    "evaluate",
    "latents",
    "sample",
    "export",
    "reconstruct",
    "demo",
    "paper",
}  # `python -m litevae.<name>`; nothing imports them
OPERATORS = {"haar_dwt2d", "smc_conv2d", "group_norm_silu"}
BACKENDS = {"reference", "cpu", "cuda", "triton_backend"}
TOP_LEVEL = {"README.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "constraints.txt", "csrc", "tests", *PACKAGES}
MOST_LINES = {"litevae": 300, "litevae_kernels": 300, "benchmarks": 300, "csrc": 350}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in python_files(*PACKAGES)}


def imported(path: Path) -> set[str]:
    """Modules of this repository that a file imports, at its top or within a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path} imports relatively, in line {node.lineno}")
        elif isinstance(node, ast.ImportFrom) and node.module == "litevae":
            lazy = {name: module for module, names in litevae._NAMES_OF_MODULES.items() for name in names}
            found |= {lazy.get(alias.name, f"litevae.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (submodules & MODULES.keys()) or {node.module}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


IMPORTS = {module: imported(path) for module, path in MODULES.items()}
IMPORTS["litevae"] = set()  # loads its names when they are first used


def room_of(module: str) -> str:
    """The folder or file just below litevae; "__init__" for litevae itself."""
    return [*module.split("."), "__init__"][1]


def arrows() -> Iterator[tuple[str, str]]:
    for module, targets in IMPORTS.items():
        yield from ((module, target) for target in sorted(targets))


def test_the_top_level_is_fixed():
    listed = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files"], capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("git does not know this folder")
    names = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_the_operators_know_nothing_of_the_models():
    assert [
        (a, b) for a, b in arrows() if a.startswith("litevae_kernels") and not b.startswith("litevae_kernels")
    ] == []


def test_the_packages_know_nothing_of_the_benchmarks():
    assert [(a, b) for a, b in arrows() if a.startswith("litevae") and b.startswith("benchmarks")] == []


def test_every_place_of_litevae_has_a_row():
    places = {room_of(module) for module in MODULES if module.startswith("litevae.")}
    assert places == {*ROOMS, *FOUNDATION - {"__init__"}, *LOADING, *COMMANDS}


def test_imports_go_one_way_between_the_rooms():
    wrong = []
    for module, target in arrows():
        if not (module.startswith("litevae.") and target.startswith("litevae.")):
            continue
        room, other = room_of(module), room_of(target)
        if room == other or room in COMMANDS | LOADING:
            continue
        allowed = ROOMS.get(room, set()) | FOUNDATION
        if other not in allowed:
            wrong.append(f"{module} -> {target}")
    assert wrong == []


def test_streaming_has_one_door():
    inner = "litevae.data.streaming."
    outside = [(a, b) for a, b in arrows() if b.startswith(inner) and not a.startswith(inner.rstrip("."))]
    assert outside == []


def test_nothing_imports_a_command():
    assert [(a, b) for a, b in arrows() if b.startswith("litevae.") and room_of(b) in COMMANDS] == []


def test_there_is_no_circle_of_imports():
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in finished:
            return
        for target in IMPORTS.get(module, ()):
            visit(target, (*path, module))
        finished.add(module)

    for module in MODULES:
        visit(module, ())


def test_backends_never_import_each_other():
    wrong = []
    for module, target in arrows():
        parts, others = module.split("."), target.split(".")
        if parts[0] == "litevae_kernels" and others[:2] == parts[:2] and len(parts) == len(others) == 3:
            if parts[2] in BACKENDS and others[2] in BACKENDS | {"api", "ops"}:
                wrong.append((module, target))
            if parts[2] == "ops" and others[2] == "api":
                wrong.append((module, target))
    assert wrong == []


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_an_operator_has_its_name_in_every_folder(operator: str):
    room = REPOSITORY / "litevae_kernels" / operator
    expected = {"README.md", "__init__.py", "api.py", "ops.py", *(f"{backend}.py" for backend in BACKENDS)}
    assert expected <= {path.name for path in room.iterdir()}
    assert {"tile.h", "cuda.cu"} <= {path.name for path in (REPOSITORY / "csrc" / operator).iterdir()}
    assert list((REPOSITORY / "csrc" / operator).glob("cpu*.cpp"))
    assert (REPOSITORY / "benchmarks" / f"bench_{operator}.py").exists()
    assert (REPOSITORY / "tests" / "kernels" / f"test_{operator}.py").exists()


def test_the_roots_of_csrc_say_whose_they_are():
    both = {"inline.h", "scalar_types.h", "library.cpp"}
    names = {path.name for path in (REPOSITORY / "csrc").iterdir() if path.suffix in (".h", ".cpp", ".cu")}
    assert {name for name in names - both if not name.startswith(("cpu_", "cuda_"))} == set()


def test_files_are_short():
    sources = [
        path
        for name in MOST_LINES
        for path in (REPOSITORY / name).rglob("*")
        if path.suffix in (".py", ".h", ".cpp", ".cu")
    ]
    lengths = {path.relative_to(REPOSITORY): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {str(path): lines for path, lines in lengths.items() if lines > MOST_LINES[path.parts[0]]} == {}


def test_commands_are_thin():
    lengths = {name: len((REPOSITORY / "litevae" / f"{name}.py").read_text().splitlines()) for name in COMMANDS}
    assert {name: lines for name, lines in lengths.items() if lines > 100} == {}


def test_no_file_is_a_drawer():
    drawers = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    assert [path for path in python_files(*PACKAGES, "tests") if path.name in drawers] == []


def names_in(path: Path) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}


def test_names_are_nouns():
    """No variable `of_x`, and no "judge" where the paper says discriminator."""
    pattern = re.compile(r"of_[a-z_]+|judge\w*")
    found = {
        str(path.relative_to(REPOSITORY)): set(filter(pattern.fullmatch, names_in(path))) for path in MODULES.values()
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_a_data_flow_line_marks_its_stage():
    flow = re.compile(r"^.*DWT -> .*losses.*$", re.MULTILINE)
    lines = {path: flow.findall(path.read_text(encoding="utf-8")) for path in MODULES.values()}
    assert [str(path) for path, found in lines.items() if any("[" not in line for line in found)] == []
