"""Which metrics are there, and what does each measure?

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """What the help says of a metric, and results.json of its choices."""

    about: str
    protocol: str
    """Every choice that it makes, beside those of a network that it needs."""
    needs_latents: bool = False


METRICS = {
    "psnr": Metric("peak signal-to-noise ratio, dB", "images in [-1, 1], not rounded, clamped; mean over images"),
    "ssim": Metric(
        "structural similarity",
        "images in [-1, 1], not rounded; 11x11 Gaussian, sigma 1.5, no border; mean over images",
    ),
    "lpips-vgg": Metric("LPIPS on VGG16, as the paper measures it", "version 0.1, not rounded; mean over images"),
    "lpips-alex": Metric("LPIPS on AlexNet", "version 0.1, not rounded; mean over images"),
    "rfid": Metric(
        "Frechet distance of Inception's features: FID of reconstructions",
        "against the same images, both rounded to 8 bits; float64 sums, unbiased covariances",
    ),
    "kid": Metric(
        "kernel distance of Inception's features",
        "against the same images, both rounded to 8 bits; (x.y / D + 1)^3, unbiased, 100 subsets of 1,000 of the first "
        "10,000",
    ),
    "fid-dinov2": Metric("Frechet distance of DINOv2's features", "as rfid"),
    "fwd": Metric(
        "Frechet wavelet distance, which needs no network",
        "256 Haar packets of 4 levels, both sides rounded to 8 bits, in [0, 1]; float64 sums, unbiased covariances",
    ),
    "ifid": Metric(
        "rfid of images halfway between latents; needs --training-data",
        "10 nearest training latents by cosine, one drawn by softmax(-MSE), spherical midpoint; then as rfid",
        needs_latents=True,
    ),
    "mmd": Metric(
        "distance of latents from a standard Gaussian, Table 6",
        "see its details; the first 2,000 images",
        needs_latents=True,
    ),
    "spectrum": Metric(
        "power of latents by frequency, beside the images'", "2D DCT, 16 radial bins, normalised", needs_latents=True
    ),
    "equivariance": Metric(
        "error of decoding turned and smaller latents",
        "EQ-VAE's transforms of the first 256 images",
        needs_latents=True,
    ),
    "statistics": Metric(
        "moments, KL and activity of the latent's channels",
        "of posteriors, over all images and places",
        needs_latents=True,
    ),
    "teacher-mse": Metric(
        "error of latents against those of a hybrid's teacher, with all else that compares the two; see --teacher",
        "of the posteriors' means, over the variance of the teacher's by channel; mean over channels",
        needs_latents=True,
    ),
}
ALIASES = {"lpips": ("lpips-vgg", "lpips-alex")}


def metric_names(text: str) -> tuple[str, ...]:
    """The metrics of a list with commas, each once, in the order of `METRICS`; a ValueError for another name."""
    asked = [name for word in text.split(",") for name in ALIASES.get(word.strip(), (word.strip(),))]
    for name in asked:
        if name not in METRICS:
            raise ValueError(f"must be of {', '.join([*METRICS, *ALIASES])}, got {name!r}")
    return tuple(name for name in METRICS if name in asked)
