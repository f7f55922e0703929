"""What is shown of `details`: latents as latent_panels.py shows them; any other key is listed."""

from collections.abc import Callable, Sequence

from litevae.evaluation.report.latent_panels import (
    Details,
    Panel,
    show_equivariance,
    show_mmd,
    show_spectrum,
    show_statistics,
    show_teacher,
)
from litevae.evaluation.report.tables import Table, keys_table
from litevae.evaluation.report.wording import flatten, metric_name

_KNOWN: dict[str, tuple[str, Callable[[Panel, list[Details]], None]]] = {
    "statistics": ("Statistics of latents", show_statistics),
    "spectrum": ("Spectrum of latents", show_spectrum),
    "equivariance": ("Equivariance of the decoder", show_equivariance),
    "mmd": ("MMD of latents to a Gaussian", show_mmd),
    "teacher-mse": ("Beside the teacher", show_teacher),
}
"""Key -> title, and what takes from each model's entry all that has a place."""
_SCORES = {"psnr": "PSNR [dB]", "lpips-vgg": "LPIPS (vgg)", "lpips-alex": "LPIPS (alex)"}
_WORDS = {
    "statistics": {
        "images": "Images",
        "mean": "Mean",
        "std": "Std",
        "scaling_factor": "Scaling factor, 1 / std",
        "kl": "KL to N(0, 1) [nats per element]",
        "active_channels": "Active channels",
        "active_variance": "Active where the means' variance is above",
    },
    "spectrum": {
        "images": "Images",
        "latent_slope": "Slope of latents",
        "image_slope": "Slope of images",
        "kl": "KL(images || latents) [nats]",
    },
    "equivariance": {"images": "Images"},
    "mmd": {
        "unit": "Unit",
        "kernel": "Kernel",
        "estimator": "Estimator",
        "latents": "Latents",
        "images": "Images",
        "draws": "Draws of the Gaussian",
        "dimension": "Elements of a latent",
        "median_distance": "Median distance of two latents",
    },
    "teacher-mse": {
        "teacher": "Teacher",
        "teacher_weights": "Its weights",
        "images": "Images",
        "cosine": "Cosine of latents, mean over channels",
        "kl_from_teacher": "KL(teacher || student) [nats per element]",
        "kl_to_teacher": "KL(student || teacher) [nats per element]",
        **{f"{name}_to_teacher": f"{text} to the teacher's reconstructions" for name, text in _SCORES.items()},
        **{f"{name}_of_teacher": f"{text} of the teacher's to the images" for name, text in _SCORES.items()},
    },
    "kid": {"kid_std": "Std over subsets"},
}
"""What a value that is listed is called."""


def panels(details: Sequence[Details], names: Sequence[str]) -> list[Panel]:
    """The panels of one size, of the models that have them; `details` and `names` have an entry for each model."""
    found = []
    for key in dict.fromkeys([*_KNOWN, *(key for detail in details for key in detail)]):
        having = [index for index, detail in enumerate(details) if detail.get(key) not in (None, {}, [])]
        if not having:
            continue
        title, show = _KNOWN.get(key, (metric_name(key), None))
        own_names = [names[index] for index in having]
        is_one_of_several = len(having) == 1 < len(names)
        panel = Panel(f"{title}: {own_names[0]}" if is_one_of_several else title, own_names, having)
        values = [details[index][key] for index in having]
        parts = [dict(value) if isinstance(value, dict) else {key: value} for value in values]
        if show is not None:
            show(panel, parts)  # takes from `parts` what it shows
        panel.tables += _rest(parts, own_names, _WORDS.get(key, {}))
        found.append(panel)
    return found


def _rest(parts: list[Details], names: Sequence[str], words: dict[str, str]) -> list[Table]:
    """What is no chart and no table of its own: first what differs between models, then what is alike for all."""
    flat = [flatten({words.get(key, key): value for key, value in part.items()}) for part in parts]
    first, *others = flat
    same = {key: text for key, text in first.items() if others and all(other.get(key) == text for other in others)}
    tables = [
        keys_table("", [{key: text for key, text in one.items() if key not in same} for one in flat], names),
        keys_table("Alike for all" if len(same) < len(first) else "", [same], [""]),
    ]
    return [table for table in tables if table is not None]
