"""What does a distillation tell the card of its model: how it was trained, on what, and how near it came?"""

from litevae.distillation.config import DistillationConfig
from litevae.distillation.evaluation import Comparison
from litevae.distillation.teacher import Teacher
from litevae.models.model_card import public_name
from litevae.models.model_facts import Measurement, ModelFacts


def run_facts(config: DistillationConfig, teacher: Teacher, images: str, comparison: Comparison) -> ModelFacts:
    """What the card says beside the architecture; no path of this machine is in it.

    Args:
        images: what is trained on, in numbers: "6 photographs".
        comparison: of the held-out images, by the model that is kept.
    """
    train, data = config.train, config.data
    name = public_name(data.path) if data.path is not None else data.resolved_source
    means, latents = comparison.means, comparison.latents.values()
    weights = ", ".join(f"{term} {weight:g}" for term, weight in config.loss.weights.items() if weight)
    tuned = f"learned from step {train.decoder_start:,} on" if train.decoder_start is not None else "the teacher's"
    rows = {
        "Program": "`litevae.train`, kind `distillation`",
        "Teacher": public_name(teacher.name),
        "Decoder": tuned,
        "Data": f"{name}: {images}, crops of {data.crop_size} pixels",
        "Steps": f"{train.steps:,} of {train.batch_size} crops",
        "Losses": weights,
        "Optimizer": f"Adam at {train.learning_rate:g}, {train.schedule}, {train.precision}",
        "Averaged weights": f"decay {train.ema_decay:g}" if train.ema_decay else "",
        "Seed": str(train.seed),
        "Same images, the teacher": f"{means['teacher_psnr']:.2f} dB",
    }
    size = "whole" if data.evaluation_size is None else f"{data.evaluation_size}x{data.evaluation_size}"
    values = {"psnr": means["psnr"], "latent_error": latents["latent_error"]}
    measured = tuple(
        Measurement(f"{name}, held out", len(comparison.scores), size, metric, value, "litevae.train")
        for metric, value in values.items()
    )
    is_on_hub = data.resolved_source == "dataset" and "/" in name
    return ModelFacts(
        training={what: value for what, value in rows.items() if value},
        measurements=measured,
        datasets=(name,) if is_on_hub else (),
    )
