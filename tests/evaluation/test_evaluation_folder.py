"""Does an interrupted evaluation go on, and is nothing that was written ever lost?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from litevae.evaluation.evaluation_folder import EvaluationFolder

REQUEST = {"model": "a", "sizes": [64]}


def test_a_size_is_read_as_it_was_written(tmp_path: Path):
    folder = EvaluationFolder.open(tmp_path / "one", tmp_path, REQUEST)
    folder.state(64, 0).write_bytes(b"state")
    folder.state(128, 0).write_bytes(b"of another size")
    assert folder.read_size(64) is None
    folder.write_size(64, {"images": 2}, {3: {"psnr": 1.5}, 10: {"psnr": 0.1}}, {3: "a.png", 10: 'b,"c".png'})
    again = EvaluationFolder.open(tmp_path / "one", tmp_path, REQUEST)
    content = again.read_size(64)
    assert content == {
        "result": {"images": 2},
        "scores": {3: {"psnr": 1.5}, 10: {"psnr": 0.1}},
        "names": {3: "a.png", 10: 'b,"c".png'},
    }
    assert not folder.state(64, 0).exists()
    assert folder.state(128, 0).exists()
    again.write_scores({64: content})
    assert again.scores.read_text().splitlines() == [
        "size,index,name,psnr",
        "64,3,a.png,1.5",
        '64,10,"b,""c"".png",0.1',
    ]
    again.finish({"format": 1})
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["results.json", "scores.csv"]


def finished(path: Path) -> None:
    EvaluationFolder.open(path, path, REQUEST).finish({"format": 1})


def interrupted(path: Path) -> None:
    EvaluationFolder.open(path, path, {"model": "b", "sizes": [64]})


def foreign(path: Path) -> None:
    path.mkdir()
    (path / "report.html").write_text("mine")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (finished, "which holds a finished evaluation; name another"),
        (interrupted, r"which holds an unfinished evaluation with another model \(b, now a\); name another"),
        (foreign, r"which holds report\.html; name another"),
    ],
)
def test_another_evaluation_is_left_alone(tmp_path: Path, make, message: str):
    make(tmp_path / "one")
    before = {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"--output must name an empty folder, got .*{message}"):
        EvaluationFolder.open(tmp_path / "one", tmp_path / "default", REQUEST)
    assert {path: path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file()} == before
    for _ in range(2):  # the second goes on with the first
        assert EvaluationFolder.open(None, tmp_path / "one", REQUEST).path == tmp_path / "one-2"
    assert EvaluationFolder.open(None, tmp_path / "one", {"model": "c"}).path == tmp_path / "one-3"


def test_a_request_that_was_cut_off_begins_anew(tmp_path: Path):
    folder = EvaluationFolder.open(tmp_path, tmp_path, REQUEST)
    folder.request.write_text('{"mod')
    assert json.loads(EvaluationFolder.open(tmp_path, tmp_path, REQUEST).request.read_text()) == REQUEST


def test_nothing_is_left_of_what_measured_nothing(tmp_path: Path):
    EvaluationFolder.open(tmp_path / "one", tmp_path, REQUEST).discard_unused()
    assert not (tmp_path / "one").exists()
    folder = EvaluationFolder.open(tmp_path / "one", tmp_path, REQUEST)
    assert not folder.has_measured
    folder.state(64, 1).write_bytes(b"state")
    assert folder.has_measured
    folder.discard_unused()
    assert folder.state(64, 1).read_bytes() == b"state"
    folder.finish({"format": 1})
    folder.discard_unused()
    assert [path.name for path in folder.path.iterdir()] == ["results.json"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output must be a folder"):
        EvaluationFolder.open(tmp_path / "file" / "below", tmp_path, REQUEST)
