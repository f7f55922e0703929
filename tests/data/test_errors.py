"""Is every image that cannot be used named once, counted once, and given its reason?"""

import warnings

import pytest
from PIL import Image

from litevae.data import errors
from litevae.data.errors import IGNORED_PROFILE, Skip, SkipCounts, UnreadableImageError, read_or_skip


def test_named_once_and_counted_by_kind() -> None:
    counts = SkipCounts()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, kind in [("a.png", "unreadable"), ("b.png", "too small"), ("a.png", "unreadable")]:
            counts.add(Skip(name, kind, "because"))
    assert [str(warning.message) for warning in caught] == [
        "skipped (unreadable) a.png: because",
        "skipped (too small) b.png: because",
    ]
    assert (counts.total, counts.by_kind()) == (2, {"unreadable": 1, "too small": 1})
    assert [skip.name for skip in counts.first] == ["a.png", "b.png"]


def test_beyond_a_limit_they_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "NAMED", 3)
    counts = SkipCounts()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(10):
            counts.add(Skip(str(number), "unreadable", "because"))
    assert [str(warning.message).partition(":")[0] for warning in caught] == [
        "skipped (unreadable) 0",
        "skipped (unreadable) 1",
        "skipped (unreadable) 2",
        "skipped more than 3 images",
    ]
    assert (counts.total, len(counts.first)) == (10, 3)


def test_an_image_that_is_used_without_its_profile_is_named_but_not_counted() -> None:
    counts = SkipCounts()
    used = Image.new("RGB", (2, 2))
    used.info[IGNORED_PROFILE] = "it is noise"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert read_or_skip(lambda: used, "a.png", 1, counts.add) is used
        counts.add(Skip("a.png", "unreadable", "no such file"))
    assert [str(warning.message) for warning in caught] == [
        "ignored (ICC profile) a.png: it is noise",
        "skipped (unreadable) a.png: no such file",
    ]
    assert (counts.total, counts.by_kind()) == (1, {"unreadable": 1})


def test_many_broken_profiles_leave_the_names_of_unreadable_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "NAMED", 2)
    counts = SkipCounts()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(5):
            counts.add(Skip(str(number), IGNORED_PROFILE, "because"))
        counts.add(Skip("a.png", "unreadable", "because"))
    assert [str(warning.message) for warning in caught][2:] == [
        "ignored more than 2 ICC profiles: no more of them are named",
        "skipped (unreadable) a.png: because",
    ]


def test_read_or_skip() -> None:
    def broken() -> Image.Image:
        raise UnreadableImageError("cannot read the image x: it is cut off", "it is cut off")

    skips: list[Skip] = []
    assert read_or_skip(broken, "x", 1, skips.append) is None
    assert read_or_skip(lambda: Image.new("RGB", (40, 31)), "y", 32, skips.append) is None
    assert read_or_skip(lambda: Image.new("RGB", (40, 32)), "z", 32, skips.append) is not None
    assert [skip[:2] for skip in skips] == [("x", "unreadable"), ("y", "too small")]
    assert skips[0].reason == "it is cut off"
    assert skips[1].reason.startswith("40x31; both sides must have at least 32 pixels")
