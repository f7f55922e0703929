"""Does what is held out depend on what images are called, and on nothing else?"""

import os
import unicodedata
from collections.abc import Iterable

import numpy as np
import pytest

from litevae.data.config import DataConfig
from litevae.data.image_sources import FileSource
from litevae.data.split import HeldOutContents, evaluation_order, hash_number, split

CLASSES = [f"class-{number:02d}/{image}.png" for number in range(20) for image in range(10)]


def config(**changes: object) -> DataConfig:
    return DataConfig(**{"path": "x", **changes})  # type: ignore[arg-type]


def source(names: Iterable[str], folder: str = "/photos") -> FileSource:
    return FileSource([f"{folder}/{name}" for name in names], folder)


def held_out(names: Iterable[str], folder: str = "/photos", **changes: object) -> list[str]:
    names = list(names)
    order, count = split(source(names, folder), config(**changes))
    assert sorted(order) == list(range(len(names)))
    return [names[index] for index in order[:count]]


def test_numbers_are_these_on_every_machine_and_in_every_version() -> None:
    """BLAKE2b of 64 bits, as `printf 0/cat/1.png | b2sum -l 64` prints it, and 53 bits of it as a number below 1."""
    assert hash_number(b"cat/1.png", 0) == (0xEA20402E906FCAB5 >> 11) / 2**53
    assert hash_number("Zürich.png".encode(), 3) == (0x0AEC876E4B110F7D >> 11) / 2**53
    assert held_out(CLASSES)[:4] == ["class-05/1.png", "class-15/1.png", "class-03/2.png", "class-05/7.png"]


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_about_the_share_is_held_out_of_every_folder(share: float) -> None:
    names = [f"{folder}/{image:05d}.jpg" for folder in "abcdefghij" for image in range(1000)]
    found = held_out(names, holdout=share)
    deviation = np.sqrt(1000 * share * (1 - share))
    for folder in "abcdefghij":
        count = sum(name.startswith(folder) for name in found)
        assert abs(count - 1000 * share) < 5 * deviation  # of a binomial distribution
    assert found != held_out(names, holdout=share, holdout_seed=1)
    # In the order of evaluation folders alternate: the first 40 of one folder would be 40 of 40.
    assert max(sum(name.startswith(folder) for name in found[:40]) for folder in "abcdefghij") < 15


def test_others_may_come_and_go() -> None:
    first = set(held_out(CLASSES))
    others = [f"class-{number:02d}/{image}.png" for number in range(40) for image in range(3, 20)]
    second = set(held_out(others))
    both = set(CLASSES) & set(others)
    assert len(first & both) >= 5
    assert first & both == second & both
    assert held_out(reversed(CLASSES)) == held_out(CLASSES)


def test_place_case_and_form_of_accents_make_no_difference() -> None:
    names = [f"Köln/Café {number}.JPG" for number in range(200)]
    expected = [names.index(name) for name in held_out(names)]
    assert len(expected) > 1
    for form in ("NFC", "NFD"):
        for change in (str.lower, str.upper, str):
            changed = [change(unicodedata.normalize(form, name)) for name in names]
            assert [changed.index(name) for name in held_out(changed, "/elsewhere/photos")] == expected


def test_names_that_are_no_unicode() -> None:
    assert held_out([os.fsdecode(b"\xff.png"), os.fsdecode(b"\xfe.png")], holdout=0.5)


def test_at_least_one_and_not_all() -> None:
    for share in (1e-9, 0.5, 1 - 1e-9):
        for count in (2, 3, 50):
            assert 1 <= len(held_out(CLASSES[:count], holdout=share)) <= count - 1


def test_images_of_one_name_are_told_apart() -> None:
    """As rows of a dataset can be: neither all of them nor none."""

    class SameName(FileSource):
        def identities(self) -> Iterable[str]:
            return ("image.png" for _ in self.paths)

    one_name = SameName([str(number) for number in range(1000)])
    order, count = split(one_name, config())
    assert abs(count - 50) < 5 * np.sqrt(1000 * 0.05 * 0.95)
    more = SameName([str(number) for number in range(1200)])
    held = set(split(more, config())[0][: split(more, config())[1]].tolist())
    assert set(order[:count].tolist()) == {index for index in held if index < 1000}


def test_the_rule_of_older_runs() -> None:
    """The last ones, in name order, also of a folder that is held out as a whole."""
    assert held_out(CLASSES, holdout_rule="last") == CLASSES[-10:]
    assert held_out(CLASSES[:3], holdout_rule="last", holdout=0.99) == CLASSES[1:3]
    assert evaluation_order(source(CLASSES), config(holdout_rule="last")).tolist() == list(range(200))
    assert [CLASSES[index] for index in evaluation_order(source(CLASSES), config())[:9]] == held_out(CLASSES)[:9]


def test_contents_of_a_stream() -> None:
    digests = [bytes([number]) * 16 for number in range(256)]
    contents = HeldOutContents(0.3, seed=0)
    found = {digest for digest in digests if digest in contents}
    assert found == {digest for digest in digests if hash_number(digest, 0) < 0.3}
    assert 40 < len(found) < 115
    assert b"" not in HeldOutContents(1.0, seed=0)  # no content: training is to name it
    also, but = next(iter(set(digests) - found)), next(iter(found))
    changed = HeldOutContents(0.3, 0, frozenset({also}), frozenset({but}))
    assert {digest for digest in digests if digest in changed} == found - {but} | {also}
