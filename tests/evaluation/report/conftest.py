"""A results.json with pictures, as an evaluation writes it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae.evaluation.report import choose_gallery, save_gallery_images

from .measured import measured_details

Made = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def make_results(tmp_path: Path) -> Made:
    """(label, seed, sizes) -> (folder, results); every model sees the same six originals."""

    def make(label: str = "S", seed: int = 0, sizes: tuple[int, ...] = (16, 32)) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        noise = torch.Generator().manual_seed(seed)
        gallery = []
        for size in sizes:
            scores = {index: {"psnr": 20.0 + index + seed / 10, "ssim": 0.5 + index / 20} for index in range(6)}
            for chosen in choose_gallery(scores, each=1):
                same = torch.Generator().manual_seed(1000 * size + chosen.index)
                original = torch.rand(3, size, size, generator=same) * 2 - 1
                changed = (original + 0.2 * torch.randn(original.shape, generator=noise)).clamp(-1, 1)
                latent = torch.randn(4, size // 8, size // 8, generator=noise)
                gallery.append(
                    {
                        "name": f"photo-{chosen.index}.png",
                        "index": chosen.index,
                        "size": size,
                        "rank": chosen.rank,
                        "by": chosen.by,
                        "scores": scores[chosen.index],
                        **save_gallery_images(folder, chosen.index, size, original, changed, latent),
                    }
                )
        results = {
            "format": 1,
            "model": {"name": f"runs/{label}", "label": label, "class": "LiteVAE", "encoder_parameters": 1038308},
            "data": {"name": "photographs", "images": 6, "skipped": {"unreadable": 1}, "hash": "sha256:01ab"},
            "protocol": {"name": "ldm", "crop": "centre", "latent": "mode"},
            "sizes": {
                str(size): {
                    "images": 6,
                    "metrics": {"psnr": 20.125 + seed, "ssim": 0.625, "rfid": 8.5 - seed / 1000, "fwd": 3.25 + seed},
                    "details": measured_details(seed=seed),
                    "warnings": ["rfid: 6 images are few"],
                    "seconds": 1.5,
                }
                for size in sizes
            },
            "unavailable": {"kid": "needs inception.pth from https://example.org/weights"},
            "gallery": gallery,
            "versions": {"litevae": "0.1.0", "machine": {"cpu": "a CPU"}},
            "command": ["python", "-m", "litevae.evaluate", f"runs/{label}", "my photographs"],
            "date": "2026-11-27",
        }
        (folder / "results.json").write_text(json.dumps(results))
        return folder, results

    return make
