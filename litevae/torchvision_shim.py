"""Makes torchvision importable under a CPU-only torch, by declaring the two operators that its import asks for.

PyPI's torchvision is built for CUDA. Its library of operators does not load under a CPU-only torch, and
`import torchvision` (so also lpips, torchmetrics, and diffusers' autoencoders) then ends with "operator
torchvision::nms does not exist". The operators themselves stay unavailable; nothing in this project calls them.

`litevae.models`, which imports diffusers' autoencoders, and the networks of evaluation install it; `import litevae`
does not. A program that imports lpips or torchvision before `litevae.models` calls `install`.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []


def install() -> bool:
    """Declare `torchvision::nms` and `torchvision::qnms` if torchvision cannot do so itself; True if it was needed.

    Nothing happens where torch has CUDA, where torchvision is absent or already imported, or where its operators load
    (its own CPU builds, macOS). Calling it again does nothing.
    """
    if torch.version.cuda is not None or _operators_declared():
        return False
    folder = _torchvision_folder()
    if folder is None or _operators_load(folder):
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)  # the declarations live as long as this object
    return True


def _operators_declared() -> bool:
    return hasattr(torch.ops.torchvision, "nms")


def _torchvision_folder() -> Path | None:
    spec = importlib.util.find_spec("torchvision")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _operators_load(folder: Path) -> bool:
    """Whether torchvision's operators load here. Loading them early is what its own import does first, too."""
    for path in (*sorted(folder.glob("_C*.so")), *sorted(folder.glob("_C*.pyd"))):
        try:
            torch.ops.load_library(str(path))
        except OSError:
            continue
        return True
    return False
