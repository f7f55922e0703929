"""Does the hash of contents see every change of the images, and nothing else?"""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from litevae.evaluation.content_hash import ContentHash
from litevae.evaluation.set_metric import Batch
from litevae.pixels import to_float

PIXELS = torch.randint(0, 256, (6, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def hashed(pixels: Tensor = PIXELS, indices: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> str:
    content = ContentHash()
    content.add_pixels(indices, pixels)
    return content.hexdigest()


def by_hand(pixels: Tensor) -> str:
    """The definition, in Python's integers."""
    totals = [0, 0, 0, 0, len(pixels)]
    for index, image in enumerate(pixels):
        digest = hashlib.blake2b(f"{index} {list(image.shape)} ".encode() + image.numpy().tobytes(), digest_size=32)
        for part in range(4):
            totals[part] += int.from_bytes(digest.digest()[8 * part : 8 * part + 8], "little")
    state = b"".join((total % 2**64).to_bytes(8, "little") for total in totals)
    return f"blake2b:{hashlib.blake2b(state, digest_size=32).hexdigest()}"


@pytest.mark.parametrize("images", [1, 6])
def test_it_is_the_sum_of_the_images_hashes(images: int) -> None:
    assert hashed(PIXELS[:images], tuple(range(images))) == by_hand(PIXELS[:images])


def test_order_batches_and_processes_do_not_matter() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert hashed(PIXELS[order], tuple(order.tolist())) == hashed()
    processes = [ContentHash(), ContentHash(), ContentHash()]
    for start in range(0, 6, 2):
        for index in (start, start + 1):
            processes[index % 2].add_pixels((index,), PIXELS[index : index + 1])
    for other in processes[1:]:  # the last one had no image
        processes[0].merge(other.sums, other.kept)
    assert processes[0].hexdigest() == hashed()


def test_an_interrupted_pass_goes_on(tmp_path: Path) -> None:
    first, second = ContentHash(), ContentHash()
    first.add_pixels((0, 1), PIXELS[:2])
    torch.save((first.sums, first.kept), tmp_path / "state.pt")
    second.merge(*torch.load(tmp_path / "state.pt", weights_only=True))
    second.add_pixels((2, 3, 4, 5), PIXELS[2:])
    assert second.hexdigest() == hashed()


def test_floats_in_a_batch_are_the_pixels_that_they_were() -> None:
    every = torch.arange(256, dtype=torch.uint8).expand(1, 3, 4, 256)
    content = ContentHash()
    content.add(Batch((7,), to_float(every), to_float(every)))
    assert content.values() == {"content-hash": hashed(every, (7,))}


def test_every_change_shows() -> None:
    changed = PIXELS.clone()
    changed[4, 2, 3, 1] += 1
    swapped = PIXELS[[1, 0, 2, 3, 4, 5]]
    found = [
        hashed(),
        hashed(changed),
        hashed(swapped),
        hashed(PIXELS[:5], (0, 1, 2, 3, 4)),
        hashed(PIXELS, (0, 1, 2, 3, 4, 6)),
        hashed(PIXELS.reshape(6, 3, 5, 4)),
        hashed(torch.cat([PIXELS, PIXELS[:1]]), (0, 1, 2, 3, 4, 5, 0)),  # an image counted twice
        hashed(torch.cat([PIXELS, PIXELS[:1], PIXELS[:1]]), (0, 1, 2, 3, 4, 5, 0, 0)),
        ContentHash().hexdigest(),
    ]
    assert len(set(found)) == len(found)
