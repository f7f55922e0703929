"""What does the README.md beside a model's weights say, and may it be written anew?

A card is written from what its model is and from `ModelFacts`, which its YAML holds too: a model that was loaded from a
folder with a card hands them on. A card that was changed by hand is known by its digest, and stays as it is.
"""

import contextlib
import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

import litevae
from litevae.models.card_text import card_text, model_title
from litevae.models.model_facts import CardPlace, Measurement, ModelFacts, public_name
from litevae_kernels.files import write_text

CARD_NAME = "README.md"
RESULTS_NAME = "results.json"
UNKNOWN_LICENSE = "unknown"  # as the Hub calls it
_TAGS = ["autoencoder", "variational-autoencoder", "latent-diffusion"]
_DIGEST = re.compile(r"\n<!-- Written by litevae .* blake2b:([0-9a-f]{32}) -->\n*\Z")


@dataclass(frozen=True)
class CardRecord:
    """What a card says for programs."""

    weights: str
    """The `state_hash` of the model that it is of."""
    dtype: str
    facts: ModelFacts


def build_card(model: Any, facts: ModelFacts, weights: str, place: CardPlace) -> str:
    """The text of a card: YAML that the Hub reads, then Markdown, last a digest of all before it.

    Args:
        model: a LiteVAE or StableDiffusionVAE.
        weights: the `state_hash` of the model.
    """
    results = [_as_eval_result(one) for one in facts.measurements if math.isfinite(one.value)]
    dtype = str(model.dtype).removeprefix("torch.")
    own: dict[str, Any] = {"weights": weights, "dtype": dtype, "training": dict(facts.training)}
    own |= {"variant": place.variant} if place.variant else {}
    data = ModelCardData(
        library_name="diffusers",
        license=facts.license or UNKNOWN_LICENSE,
        pipeline_tag="image-to-image",
        tags=["litevae", *_TAGS] if hasattr(model, "architecture") else _TAGS,
        datasets=list(facts.datasets) or None,
        model_name=model_title(model) if results else None,
        eval_results=results or None,
        litevae=own,
    )
    text = f"---\n{data.to_yaml()}\n---\n{card_text(model, facts, place)}"
    about = "Written anew with the model, unless it was changed by hand."
    return f"{text}\n<!-- Written by litevae {litevae.__version__}. {about} blake2b:{_digest(text)} -->\n"


def is_generated(text: str) -> bool:
    """Whether a card is as `build_card` wrote it."""
    found = _DIGEST.search(text)
    return found is not None and found[1] == _digest(text[: found.start()])


def may_be_replaced(text: str | None, variant: str | None) -> bool:
    """Whether a card may be replaced by one of a variant of the weights.

    One that cannot be read as text (None), or that was changed by hand, may not; nor one of the weights without a
    variant by one of a variant.
    """
    if text is None or not is_generated(text):
        return False
    data = _metadata(text)
    return variant is None or (data is not None and data.get("litevae", {}).get("variant") == variant)


def read_card(folder: Path) -> str | None:
    """The text of a folder's card; None where there is none, or none that can be read as text."""
    try:
        with (folder / CARD_NAME).open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def write_card(folder: Path, text: str, variant: str | None = None) -> bool:
    """Write a card unless one is there that may not be replaced; returns whether it was written."""
    if (folder / CARD_NAME).exists() and not may_be_replaced(read_card(folder), variant):
        return False
    write_text(folder / CARD_NAME, text)
    return True


def keep_own_card(before: Path, folder: Path) -> None:
    """Take a README.md that was changed by hand from the folder that `folder` is about to replace."""
    text = read_card(before)
    if text is not None and not is_generated(text):
        write_text(folder / CARD_NAME, text)


def handed_on(text: str) -> CardRecord | None:
    """What a card, as it was written or changed by hand, says; None where it does not say of which weights."""
    data = _metadata(text)
    own = None if data is None else data.get("litevae")
    if data is None or not isinstance(own, dict) or not isinstance(own.get("weights"), str):
        return None
    told = own.get("training")
    training = {str(key): str(value) for key, value in told.items()} if isinstance(told, dict) else {}
    measured = tuple(filter(None, map(_as_measurement, data.eval_results or ())))
    datasets = (data.datasets,) if isinstance(data.datasets, str) else tuple(data.datasets or ())
    facts = ModelFacts(None, training, measured, datasets)
    if data.license != UNKNOWN_LICENSE:
        with contextlib.suppress(TypeError, ValueError):  # changed by hand into what is no license of the Hub's
            facts = replace(facts, license=data.license)
    return CardRecord(own["weights"], str(own.get("dtype")), facts)


def measurements_beside(folder: Path, weights: str) -> tuple[Measurement, ...]:
    """What `litevae.evaluate` measured of these weights: in every results.json in `folder`, or one level below it.

    The newest file is the last.
    """
    found = []
    files = [*folder.glob(RESULTS_NAME), *folder.glob(f"*/{RESULTS_NAME}")]
    for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # another program's
            results = json.loads(file.read_text(encoding="utf-8"))
            if results["model"]["weights"] == weights:
                data, source = public_name(results["data"]["name"]), _how_measured(results)
                found += [
                    Measurement(data, one["images"], f"{size}x{size}", metric, value, source)
                    for size, one in results["sizes"].items()
                    for metric, value in one["metrics"].items()
                    if isinstance(value, float)
                ]
    return tuple(found)


def _how_measured(results: dict[str, Any]) -> str:
    """With the protocol, and what is not as usual: samples of the posterior, half precision."""
    protocol, dtype = results["protocol"], results["model"]["dtype"]
    unusual = ["" if "mode" in protocol["latent"] else protocol["latent"], "" if dtype == "float32" else dtype]
    return ", ".join(filter(None, ["litevae.evaluate", protocol["name"], *unusual]))


def _metadata(text: str) -> Any:
    if not text.lstrip().startswith("---"):
        return None
    try:
        return ModelCard(text, ignore_metadata_errors=True).data
    except Exception:  # whatever a YAML parser says of somebody's text
        return None


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _as_eval_result(one: Measurement) -> EvalResult:
    return EvalResult(
        task_type="image-to-image",
        task_name="Reconstruction",
        dataset_type=re.sub(r"[^\w./-]+", "-", one.data.lower()).strip("-") or "unnamed",
        dataset_name=one.data,
        dataset_config=one.size,
        metric_type=one.metric,
        metric_name=one.metric,
        metric_args={"images": one.images, "measured_by": one.source},  # the Hub joins results of one data set
        metric_value=float(f"{one.value:.6g}"),
    )


def _as_measurement(result: EvalResult) -> Measurement | None:
    """None for one that was written by hand, or is in words."""
    try:
        about = result.metric_args or {}
        images, value, source = int(about["images"]), float(result.metric_value), str(about["measured_by"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Measurement(result.dataset_name, images, str(result.dataset_config), result.metric_type, value, source)
