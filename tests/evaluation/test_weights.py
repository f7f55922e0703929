"""Are weights found where they should be, downloaded only when asked, and refused by name where they are not right?"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from litevae import torchvision_shim
from litevae.evaluation.weights import (
    ALEXNET_FILE,
    DINOV2_FILE,
    INCEPTION_FILE,
    VGG16_FILE,
    MissingWeightsError,
    WeightFile,
    WeightSource,
    WrongWeightsError,
    find_weights,
    load_weights,
)

torchvision_shim.install()  # for torchvision and torch-fidelity

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, 2.0])}
EXPECTED = {name: torch.empty_like(tensor) for name, tensor in STATE.items()}


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def published(content: bytes) -> WeightFile:
    """A file whose name has the beginning of its hash."""
    prefix = hashlib.sha256(content).hexdigest()[:8]
    return WeightFile("Little", "someone", f"https://example.org/v1/little-{prefix}.pth", 7)


CONTENT = saved(STATE)
FILE = published(CONTENT)


class Network:
    """What torch.hub asks the network for, and what it gets."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: bytes | None = None

    def urlopen(self, *_: object, **__: object) -> object:
        self.asked += 1
        if self.answer is None:
            raise URLError("Name or service not known")

        class Response(io.BytesIO):
            def info(self) -> "Response":
                return self

            def get_all(self, _: str) -> None:
                return None

        return Response(self.answer)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(torch.hub, "urlopen", network.urlopen)
    return network


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Network) -> Path:
    """Torch hub's folder for files, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_names_and_hashes_are_the_published_ones() -> None:
    models = pytest.importorskip("torchvision.models")
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    assert INCEPTION_FILE.url == inception.URL_INCEPTION_V3
    assert VGG16_FILE.url == models.VGG16_Weights.IMAGENET1K_V1.url
    assert ALEXNET_FILE.url == models.AlexNet_Weights.IMAGENET1K_V1.url
    assert [file.hash_prefix for file in (INCEPTION_FILE, VGG16_FILE, ALEXNET_FILE, DINOV2_FILE)] == [
        "6726825d",
        "397923af",
        "7be5be79",
        None,
    ]
    assert DINOV2_FILE.name == "dinov2_vitl14_pretrain.pth"


def test_the_folder_that_was_named_comes_before_the_cache(folder: Path, hub: Path, network: Network) -> None:
    hub.mkdir(parents=True)
    (hub / FILE.name).write_bytes(CONTENT)
    source = WeightSource(folder)
    assert find_weights(FILE, "rfid", source) == hub / FILE.name
    (folder / FILE.name).write_bytes(CONTENT)
    assert find_weights(FILE, "rfid", source) == folder / FILE.name
    assert find_weights(FILE, "rfid", WeightSource()) == hub / FILE.name
    assert network.asked == 0


def test_nothing_is_downloaded_unasked(folder: Path, hub: Path, network: Network) -> None:
    with pytest.raises(MissingWeightsError) as error:
        find_weights(FILE, "rfid", WeightSource(folder))
    assert str(error.value) == (
        f"rfid needs {FILE.name}, the weights of Little (7 MB), which is not in {folder} or {hub}; put it there from "
        f"{FILE.url}, or name the folder that holds it with --weights DIR, or let --download fetch it"
    )
    assert network.asked == 0
    assert not hub.exists()


@pytest.mark.parametrize("named", [True, False])
def test_a_download_goes_where_the_next_one_looks_first(folder: Path, hub: Path, network: Network, named: bool) -> None:
    network.answer = CONTENT
    source = WeightSource(folder if named else None, download=True)
    for _ in range(2):
        torch.testing.assert_close(load_weights(FILE, "rfid", source, EXPECTED), STATE, rtol=0, atol=0)
    assert network.asked == 1
    assert [path.name for path in (folder if named else hub).iterdir()] == [FILE.name]


@pytest.mark.parametrize(
    ("answer", "why"), [(None, "<urlopen error Name or service not known>"), (b"other", "invalid hash value")]
)
def test_a_download_that_fails_leaves_nothing(hub: Path, network: Network, answer: bytes | None, why: str) -> None:
    network.answer = answer
    with pytest.raises(MissingWeightsError) as error:
        find_weights(FILE, "rfid", WeightSource(download=True))
    text = str(error.value)
    assert f"which cannot be downloaded to {hub}: {why}" in text
    assert f"; put it there from {FILE.url}, or name the folder that holds it with --weights DIR" in text
    assert "\n" not in text
    assert list(hub.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, hub: Path, network: Network) -> None:
    network.answer = CONTENT
    hub.parent.mkdir(parents=True)
    hub.write_text("a file, not a folder")
    with pytest.raises(MissingWeightsError, match=r"cannot be downloaded to .*checkpoints: .*; put it there"):
        find_weights(FILE, "rfid", WeightSource(download=True))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"a.bias": STATE["a.bias"]}, "a.weight is missing"),
        ({**STATE, "a.weight": torch.zeros(3, 2)}, "a.weight must have the shape (2, 3), got (3, 2)"),
        ({**STATE, "a.bias": torch.tensor([1.0, torch.nan])}, "a.bias holds a NaN or an infinity"),
        ({**STATE, "b": torch.zeros(1)}, "it has b besides"),
        ({"model": STATE}, "a.weight is missing"),
        ([1], "it holds a list instead of tensors by name"),
    ],
)
def test_another_network_s_file_is_refused_by_its_first_wrong_key(folder: Path, content: object, problem: str) -> None:
    path = folder / FILE.name
    path.write_bytes(saved(content))
    with pytest.raises(WrongWeightsError) as error:
        load_weights(FILE, "rfid", WeightSource(folder), EXPECTED)
    assert str(error.value) == (
        f"{path} holds other weights than those of Little: {problem}; it must be someone's file {FILE.name}, from "
        f"{FILE.url}"
    )


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(CONTENT[:100]), Path.mkdir])
def test_a_file_that_cannot_be_read(folder: Path, change: Callable[[Path], object]) -> None:
    path = folder / FILE.name
    change(path)
    with pytest.raises(WrongWeightsError) as error:
        load_weights(FILE, "rfid", WeightSource(folder), EXPECTED)
    text = str(error.value)
    assert text.startswith(f"{path} cannot be read as the weights of Little: ")
    assert text.endswith(f"; it must be someone's file {FILE.name}, from {FILE.url}")
    assert "\n" not in text


def test_other_values_of_the_right_shapes_are_refused_by_the_hash(folder: Path) -> None:
    path, other = folder / FILE.name, {**STATE, "a.bias": torch.zeros(2)}
    path.write_bytes(saved(other))
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    with pytest.raises(WrongWeightsError) as error:
        load_weights(FILE, "rfid", WeightSource(folder), EXPECTED)
    assert f"its SHA-256 must begin with {FILE.hash_prefix}, got {found}; it must be someone's" in str(error.value)
    unchecked = load_weights(FILE, "rfid", WeightSource(folder, check_hash=False), EXPECTED)
    torch.testing.assert_close(unchecked, other, rtol=0, atol=0)


def test_what_may_be_there_besides_is_said(folder: Path) -> None:
    content = saved({**STATE, "head.0": torch.zeros(1)})
    file = published(content)
    (folder / file.name).write_bytes(content)
    assert set(load_weights(file, "rfid", WeightSource(folder), EXPECTED, ignored=("head.",))) == {*STATE, "head.0"}


def test_the_label_is_the_metric_s_own_with_published_weights_alone() -> None:
    assert WeightSource().label("rfid") == "rfid"
    assert WeightSource(random=True).label("rfid") == "rfid-random-weights"
    assert WeightSource(check_hash=False).label("rfid") == "rfid-unchecked-weights"


def test_a_folder_of_weights_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--weights must be a folder that exists, got .*none'?; name the one"):
        WeightSource(tmp_path / "none")
