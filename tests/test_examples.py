"""Do the examples in the docstrings and in the README work as written?"""

import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import litevae
import litevae_kernels

README = Path(__file__).parents[1] / "README.md"
COMPILED_MODULES = ("_native", "triton_backend", "triton_rounding")  # a C library, and GPU code


def modules_with_examples() -> list[str]:
    packages = (litevae, litevae_kernels)
    names = [
        info.name for package in packages for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    sources = {name: importlib.util.find_spec(name) for name in names if not name.endswith(COMPILED_MODULES)}
    return [
        name
        for name, spec in sources.items()
        if spec is not None and spec.origin is not None and ">>> " in Path(spec.origin).read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(
        module, extraglobs={**vars(litevae_kernels), "torch": __import__("torch"), "LiteVAE": litevae.LiteVAE}
    )
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
def test_readme(block: str) -> None:
    exec(compile(block, str(README), "exec"), {})


def test_readme_is_finished_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert not re.findall(r"[A-Z0-9]+_BLOCK|TODO|QUICKSTART_TIME", text)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert links
    assert all((README.parent / link).exists() for link in links), links
