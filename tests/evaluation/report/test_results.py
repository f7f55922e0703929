"""Is a results.json that cannot be shown refused by the key that is wrong, and what cannot be compared too?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litevae.evaluation.report import check_comparable, check_results, read_results
from litevae.evaluation.report.results import labels, sizes_of

Results = dict[str, Any]
Made = Callable[..., tuple[Path, Results]]


def test_what_was_written_is_read_from_the_folder_and_from_the_file(make_results: Made) -> None:
    folder, results = make_results()
    assert read_results(folder) == results
    assert read_results(folder / "results.json") == results


def test_missing_pictures_are_no_reason_to_refuse(make_results: Made) -> None:
    folder, results = make_results()
    for picture in (folder / "images").iterdir():
        picture.unlink()
    assert read_results(folder) == results


@pytest.mark.parametrize(
    "content", [b"", b"{'format': 1}", b"\xff\xfe{}", b"[" * 100_000], ids=["empty", "quotes", "bytes", "deep"]
)
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json must be JSON, got .*; evaluate again"):
        read_results(tmp_path)


def put(results: Results, path: str, value: Any) -> None:
    """Set the value at "gallery/0/size", say; delete it where `value` is `put`."""
    *parents, last = [int(key) if key.isdecimal() and len(key) == 1 else key for key in path.split("/")]
    place: Any = results
    for key in parents:
        place = place[key]
    if value is put:
        del place[last]
    else:
        place[last] = value


WRONG = [
    ("format", 2, "format must be 1, got 2"),
    ("format", put, "format must be 1, got None"),
    ("model", put, "model must be an object, got None"),
    ("model/label", 7, "model.label must be a text, got 7"),
    ("data/hash", put, "data.hash must be a text, got None"),
    ("protocol", [], "protocol must be an object, got []"),
    ("protocol/crop", None, "protocol.crop must be a text, got None"),
    ("sizes", put, "sizes must be an object, got None"),
    ("sizes/all", {}, "sizes.all must be named by the side in pixels, got 'all'"),
    ("sizes/32", 3, "sizes.32 must be an object, got 3"),
    ("sizes/32/images", True, "sizes.32.images must be a whole number, got True"),
    ("sizes/32/metrics", put, "sizes.32.metrics must be an object, got None"),
    ("sizes/32/metrics/psnr", "24", "sizes.32.metrics.psnr must be a number, got '24'"),
    ("sizes/32/metrics/psnr", None, "sizes.32.metrics.psnr must be a number, got None"),
    ("sizes/32/details", [], "sizes.32.details must be an object, got []"),
    ("sizes/32/warnings", "few", "sizes.32.warnings must be a list, got 'few'"),
    ("unavailable", None, "unavailable must be an object, got None"),
    ("gallery/0", "x", "gallery[0] must be an object, got 'x'"),
    ("gallery/0/index", put, "gallery[0].index must be a whole number, got None"),
    ("gallery/0/scores/psnr", [], "gallery[0].scores.psnr must be a number, got []"),
    ("gallery/0/error", 5, "gallery[0].error must be a text, got 5"),
    ("gallery/0/error", "/etc/x.png", "must be a path within the folder of results.json, got '/etc/x.png'"),
    ("gallery/0/error", "images/../../x.png", "must be a path within the folder"),
    ("gallery/0/error", "..\\x.png", "must be a path within the folder"),
    ("gallery/0/error", "C:x.png", "must be a path within the folder"),
    ("command", "python", "command must be a list, got 'python'"),
    ("date", None, "date must be a text, got None"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_what_is_wrong_is_named(make_results: Made, path: str, value: Any, message: str) -> None:
    _, results = make_results()
    put(results, path, value)
    with pytest.raises(ValueError) as error:
        check_results(results, "there")
    assert str(error.value).startswith("there: ")
    assert message in str(error.value)


@pytest.mark.parametrize("results", [None, [], "text", 1])
def test_something_else_is_refused(results: Any) -> None:
    with pytest.raises(ValueError, match=r"results\.json must be an object"):
        check_results(results)


DIFFERENT = [
    ("protocol/crop", "random", "protocol.crop", "'centre' of A and 'random' of B"),
    ("protocol/crop", put, "protocol.crop", "'centre' of A and 'nothing' of B"),
    ("protocol/resize", "area", "protocol.resize", "'nothing' of A and 'area' of B"),
    ("data/hash", "sha256:ff", "data.hash", "'sha256:01ab' of A and 'sha256:ff' of B"),
    ("sizes/32", put, "sizes", "[16, 32] of A and [16] of B"),
    ("sizes/32/images", 5, "sizes.32.images", "6 of A and 5 of B"),
]


@pytest.mark.parametrize(("path", "value", "key", "values"), DIFFERENT)
def test_results_that_were_not_measured_alike_are_not_compared(
    make_results: Made, path: str, value: Any, key: str, values: str
) -> None:
    one, other = make_results("A")[1], make_results("B")[1]
    check_comparable([one, other, one])
    put(other, path, value)
    with pytest.raises(ValueError) as error:
        check_comparable([one, one, other])
    assert f"{key} must be the same in all results that are compared, got " in str(error.value)
    assert values in str(error.value)


def test_a_metric_that_only_some_have_keeps_none_from_being_compared(make_results: Made) -> None:
    baseline, one, other = (make_results(label)[1] for label in "ABC")
    put(one, "protocol/mmd", "2,000 images")
    put(other, "protocol/mmd", "2,000 images")
    check_comparable([baseline, one, other])
    put(other, "protocol/mmd", "100 images")
    with pytest.raises(ValueError, match=r"protocol\.mmd must be .*, got '2,000 images' of B and '100 images' of C"):
        check_comparable([baseline, one, other])


def test_a_metric_that_one_has_alone_is_no_difference(make_results: Made) -> None:
    """Bicubic has no latents; two that have some are compared, whatever the first one has."""
    bicubic, *models = (make_results(label)[1] for label in ("bicubic", "A", "B"))
    for model, choice in zip(models, ("the first 2,000 images", "the first 10 images"), strict=True):
        model["protocol"]["mmd"] = choice
    for size in bicubic["sizes"].values():
        del size["details"]
    check_comparable([bicubic, models[0]])
    with pytest.raises(ValueError, match=r"protocol\.mmd must be the same .* 'the first 2,000 images' of A and"):
        check_comparable([bicubic, *models])


def test_every_model_has_a_name_of_its_own(make_results: Made) -> None:
    results = [make_results(label)[1] for label in ("S", "S (2)", "S", "", "")]
    assert labels(results) == ["S", "S (2)", "S (3)", "model", "model (2)"]


def test_sizes_ascend_by_pixels() -> None:
    assert sizes_of([{"sizes": {"256": {}, "64": {}}}, {"sizes": {"1024": {}}}]) == ["64", "256", "1024"]
