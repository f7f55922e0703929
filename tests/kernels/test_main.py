"""Does `python -m litevae_kernels` tell what works here, and does --check notice a wrong backend?"""

import subprocess
import sys

import pytest

from litevae_kernels import __main__ as program
from litevae_kernels import backends, testing


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "litevae_kernels", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reports_every_backend_versions_and_the_cache() -> None:
    lines = run().splitlines()
    for name in backends():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.split()[1] in ("works", "no")
    for fact in ("default backend", "LITEVAE_KERNELS_BACKEND", "cache of cuda", "packages"):
        assert any(line.strip().startswith(fact) for line in lines), fact


def test_an_unknown_backend_in_the_environment_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEVAE_KERNELS_BACKEND", "tritn")
    assert "LITEVAE_KERNELS_BACKEND must be one of" in run()


def test_check_finds_every_operator_right() -> None:
    output = run("--check")
    assert "WRONG" not in output
    for name in ("reference", *(["cpu"] if backends()["cpu"].available else [])):
        right = [line for line in output.splitlines() if line.split()[:1] == [name] and "right" in line]
        assert len(right) == len(testing.sample_calls(None)), name


def test_check_notices_a_wrong_result(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong_calls(backend: str, device: str) -> dict[str, testing.SampleCall]:
        calls = testing.sample_calls("reference", device)
        function, inputs = calls["smc_weight"]
        if backend == "cpu":
            calls["smc_weight"] = testing.SampleCall(lambda *p: 1.001 * function(*p), inputs)
        return {"smc_weight": calls["smc_weight"]}

    works = {name: status for name, status in backends().items() if name in ("cpu", "reference")}
    monkeypatch.setattr(program, "sample_calls", wrong_calls)
    monkeypatch.setattr(program, "backends", lambda: works)
    if not works["cpu"].available:
        pytest.skip(works["cpu"].reason)
    assert program.check() == 1
    wrong, right = capsys.readouterr().out.split("\n")[1:3]
    assert wrong.split()[:3] == ["cpu", "smc_weight", "WRONG"]
    assert right.split()[:3] == ["reference", "smc_weight", "right"]
