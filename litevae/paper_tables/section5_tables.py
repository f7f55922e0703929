"""Tables 1 to 7 of the paper (section 5): the main results, what an encoder costs, and its latent space."""

from litevae.paper_tables.structure import ENCODER_PARAMETERS, QUALITY, Column, Row, Setting, Table

FFHQ128 = Setting("FFHQ", 128, 4, 100_000)
FFHQ256 = Setting("FFHQ", 256, 4, 100_000)
IMAGENET128 = Setting("ImageNet", 128, 4, 200_000)
IMAGENET128_12 = Setting("ImageNet", 128, 12, 200_000)
IMAGENET256 = Setting("ImageNet", 256, 4, 100_000)
IMAGENET256_12 = Setting("ImageNet", 256, 12, 100_000)
IMAGENET256_LONG = Setting("ImageNet", 256, 4, 150_000)

BASE_12 = "1-imagenet128-12-litevae"
"""The run that most ablations start from."""
NO_LDM = "LDM's VQ autoencoder, with latents of 64x64x3, is not trained here"


def diffusion(recipe: str, autoencoder: str, data: str) -> str:
    """Training a diffusion model on the latents of a row's run, then its FID."""
    run = f"runs/{recipe}"
    train = f"python -m litevae.train {recipe} autoencoder=runs/{autoencoder} data.path=~/{data}/train"
    return f"{train} && python -m litevae.sample {run} --images 50000 --output samples/{recipe} --fid ~/{data}/train"


TABLE_1 = Table(
    1,
    "LiteVAE-B beside the VAE over data sets, resolutions and latents",
    Setting(),
    QUALITY,
    [
        Row("1-ffhq128-vae", "FFHQ 128, 16x16x4, VAE", "0.88 | 0.089 | 28.08 | 0.85", ["ffhq128 model=sd-vae"],
            setting=FFHQ128),
        Row("1-ffhq128-litevae", "FFHQ 128, 16x16x4, LiteVAE", "0.74 | 0.085 | 28.36 | 0.85", ["ffhq128"],
            setting=FFHQ128),
        Row("1-ffhq256-vae", "FFHQ 256, 32x32x4, VAE", "0.47 | 0.109 | 28.16 | 0.81", ["ffhq256 model=sd-vae"],
            setting=FFHQ256),
        Row("1-ffhq256-litevae", "FFHQ 256, 32x32x4, LiteVAE", "0.41 | 0.117 | 28.33 | 0.82", ["ffhq256"],
            setting=FFHQ256),
        Row("1-imagenet128-vae", "ImageNet 128, 16x16x4, VAE", "4.54 | 0.164 | 24.25 | 0.69",
            ["imagenet128 model=sd-vae"], setting=IMAGENET128),
        Row("1-imagenet128-litevae", "ImageNet 128, 16x16x4, LiteVAE", "4.40 | 0.164 | 24.49 | 0.71",
            ["imagenet128"], setting=IMAGENET128),
        Row("1-imagenet128-12-vae", "ImageNet 128, 16x16x12, VAE", "0.94 | 0.069 | 29.25 | 0.86",
            ["imagenet128 model.latent_channels=12 model=sd-vae"], setting=IMAGENET128_12,
            note="Table 2a prints rFID 0.95 for it."),
        Row(BASE_12, "ImageNet 128, 16x16x12, LiteVAE", "0.94 | 0.069 | 29.45 | 0.87",
            ["imagenet128 model.latent_channels=12"], setting=IMAGENET128_12,
            note="Tables 2a and 18 print PSNR 29.55 for it."),
        Row("1-imagenet256-vae", "ImageNet 256, 32x32x4, VAE", "0.89 | 0.160 | 25.83 | 0.73",
            ["imagenet256-full train.steps=100000 model=sd-vae"], setting=IMAGENET256,
            note="Table 22 prints these rFID, PSNR and SSIM for 128-full, 150,000 steps at 128."),
        Row("1-imagenet256-litevae", "ImageNet 256, 32x32x4, LiteVAE", "0.87 | 0.157 | 26.02 | 0.74",
            ["imagenet256-full train.steps=100000"], setting=IMAGENET256),
        Row("1-imagenet256-12-vae", "ImageNet 256, 32x32x12, VAE", "0.23 | 0.073 | 30.41 | 0.86",
            ["imagenet256-full train.steps=100000 model.latent_channels=12 model=sd-vae"], setting=IMAGENET256_12),
        Row("1-imagenet256-12-litevae", "ImageNet 256, 32x32x12, LiteVAE", "0.23 | 0.072 | 30.91 | 0.88",
            ["imagenet256-full train.steps=100000 model.latent_channels=12"], setting=IMAGENET256_12),
    ],
    [
        "Encoders: VAE 34.16 M parameters, LiteVAE 6.75 M, a fifth; the abstract says a sixth.",
        "On FFHQ 256 the VAE has the better LPIPS, 0.109 against 0.117; the caption says better or similar.",
    ],
)  # fmt: skip

TABLE_2A = Table(
    2,
    "LiteVAE's sizes beside the VAE",
    IMAGENET128_12,
    [ENCODER_PARAMETERS, *QUALITY],
    [
        Row("2a-vae", "VAE", "34.16 | 0.95 | 0.069 | 29.25 | 0.86", same_as="1-imagenet128-12-vae",
            note="Table 1 prints rFID 0.94 for it."),
        Row("2a-litevae-s", "LiteVAE-S", "1.03 | 1.11 | 0.075 | 29.12 | 0.86",
            ["imagenet128 model.latent_channels=12 model.size=S"]),
        Row("2a-litevae-b", "LiteVAE-B", "6.75 | 0.94 | 0.069 | 29.55 | 0.87", same_as=BASE_12,
            note="Table 1 prints PSNR 29.45 for it."),
        Row("2a-litevae-m", "LiteVAE-M", "32.75 | 0.79 | 0.064 | 29.68 | 0.87",
            ["imagenet128 model.latent_channels=12 model.size=M"]),
        Row("2a-litevae-l", "LiteVAE-L", "41.42 | 0.74 | 0.062 | 29.94 | 0.88",
            ["imagenet128 model.latent_channels=12 model.size=L"]),
    ],
    [
        "The printed parameters are those at n_z 4, though the table is of n_z 12; S has 1.038 M, so 1.03 is cut off, "
        "not rounded. At n_z 12: S 1.041 M, B 6.758 M, M 32.757 M, L 41.434 M.",
        "The paper gives no data set for this table; the numbers are those of Table 1's ImageNet 128.",
    ],
    part="a",
)  # fmt: skip

TABLE_2B = Table(
    2,
    "The VAE with a small encoder beside LiteVAE-B",
    IMAGENET128,
    [ENCODER_PARAMETERS, *QUALITY],
    [
        Row("2b-vae", "VAE", "34.16 | 4.54 | 0.164 | 24.25 | 0.69", same_as="1-imagenet128-vae"),
        Row("2b-vae-small", "VAE-Small", "6.75 | 5.27 | 0.175 | 24.10 | 0.69", ["imagenet128 model=sd-vae-small"],
            note="The paper gives no widths. Ours have 6.79 M parameters; none in multiples of 32 have 6.75 M."),
        Row("2b-litevae-b", "LiteVAE-B", "6.75 | 4.40 | 0.164 | 24.49 | 0.71", same_as="1-imagenet128-litevae"),
    ],
    ["The paper gives no data set for this table; the numbers are those of Table 1's ImageNet 128."],
    part="b",
)  # fmt: skip

_BENCHMARK = "pytest benchmarks --benchmark-only -q -k table3"
TABLE_3 = Table(
    3,
    "What an encoder costs: parameters, memory and throughput at batch 32 on one Quadro RTX 6000",
    Setting(),
    [
        Column("encoder, M", "parameters_m", ".3f"),
        Column("GPU memory, MB", "cuda_mb", ".0f"),
        Column("throughput, img/s", "img_per_s", ".4g"),
    ],
    [
        Row("3-vae", "VAE", "34.16 | 8860 | 68", command=_BENCHMARK),
        Row("3-litevae-s", "LiteVAE-S", "1.03 | 1324 | 384", command=_BENCHMARK),
        Row("3-litevae-b", "LiteVAE-B", "6.75 | 3155 | 129", command=_BENCHMARK),
        Row("3-litevae-m", "LiteVAE-M", "32.75 | 12130 | 42.24", command=_BENCHMARK),
        Row("3-litevae-l", "LiteVAE-L", "41.425 | 12130 | 41.6", command=_BENCHMARK,
            note="The same memory as M: one of the two may be a slip."),
    ],
    [
        "The paper states neither resolution nor precision nor what its memory counts; counts of live tensors suggest "
        "256x256 in float32. M and L are slower than the VAE's encoder and need more memory; slower they are here too.",
    ],
)  # fmt: skip

TABLE_4 = Table(
    4,
    "The decoder with GroupNorm and with self-modulated convolutions (SMC)",
    IMAGENET128_12,
    QUALITY,
    [
        Row("4-group-norm", "Group Norm", "1.01 | 0.07 | 29.24 | 0.86", same_as=BASE_12,
            note="Table 8's adaptive weight and Table 10's UNet have the same numbers: probably one run, with the "
            "adaptive weight (`loss=adaptive` for both rows)."),
        Row("4-smc", "SMC", "0.97 | 0.07 | 29.32 | 0.87", ["imagenet128 model.latent_channels=12 model=smc"]),
    ],
)  # fmt: skip

TABLE_5 = Table(
    5,
    "Training at 128x128 first",
    IMAGENET256_LONG,
    QUALITY,
    [
        Row("5-256-full", "256-full", "0.75 | 0.153 | 26.10 | 0.73", ["imagenet256-full"]),
        Row("5-128-full", "128-full", "0.97 | 0.162 | 25.90 | 0.72",
            ["imagenet128 train.steps=150000 data.evaluation_size=256"]),
        Row("5-128-tuned", "128-tuned", "0.73 | 0.147 | 26.22 | 0.74",
            ["imagenet128 train.steps=100000", "imagenet256-tuned"]),
    ],
    ["The paper gives neither data set nor n_z; LPIPS is as in Table 1's ImageNet 256 with n_z 4. All are measured at "
     "256x256."],
)  # fmt: skip

TABLE_6 = Table(
    6,
    "How far latents are from a standard Gaussian: maximum mean discrepancy with RBF kernels of width sigma",
    Setting(None, 256, 4),
    [Column(f"sigma {sigma}", f"mmd-{sigma}") for sigma in (25, 50, 100, 250, 500)],
    [
        Row("6-sd-vae", "SD-VAE", "8.67±0.10 | 28.90±0.49 | 10.77±0.29 | 1.78±0.06 | 0.44±0.02",
            command="python -m litevae.evaluate stabilityai/sd-vae-ft-mse ~/imagenet/val --sizes 256 --metrics mmd "
            "--label 6-sd-vae", model_of="1-imagenet256-vae"),
        Row("6-litevae", "LiteVAE", "1.44±0.28 | 7.94±0.19 | 5.14±0.19 | 1.09±0.04 | 0.28±0.01",
            same_as="1-imagenet256-litevae"),
    ],
    [
        "Lower is nearer. Rows and columns are exchanged here.",
        "The paper does not state the kernel's form, whether MMD or its square, biased or not, the sample size, what "
        "+- is, data, resolution, n_z, the scale of the latents, or a unit. MMD^2 is at most 2: the numbers are "
        "probably 100 MMD^2, of flattened 32x32x4 latents with a standard deviation of about 1.",
    ],
)  # fmt: skip

TABLE_7 = Table(
    7,
    "Diffusion models in the latents of LDM's VAE and of LiteVAE",
    Setting(None, 256),
    [Column("FID")],
    [
        Row("7-ffhq-ldm", "FFHQ 256, LDM", "8.11", missing=NO_LDM, setting=Setting("FFHQ", 256),
            note="LDM's own paper prints 4.98."),
        Row("7-ffhq-litevae", "FFHQ 256, LiteVAE", "8.03", setting=Setting("FFHQ", 256),
            command=diffusion("ldm-ffhq256", "1-ffhq256-litevae", "ffhq")),
        Row("7-celebahq-ldm", "CelebA-HQ 256, LDM", "5.92", missing=NO_LDM, setting=Setting("CelebA-HQ", 256),
            note="LDM's own paper prints 5.11."),
        Row("7-celebahq-litevae", "CelebA-HQ 256, LiteVAE", "5.73", setting=Setting("CelebA-HQ", 256),
            command=diffusion("ldm-celebahq256", "7-celebahq-autoencoder", "celebahq"),
            note="Its autoencoder is not in Table 1: train one as 1-ffhq256-litevae, with run.dir=runs/"
            "7-celebahq-autoencoder."),
    ],
    ["The paper states neither steps, sampler, EMA, number of samples nor the scale of the latents. Why its LDM rows "
     "are not LDM's own is not known."],
)  # fmt: skip

TABLES = (TABLE_1, TABLE_2A, TABLE_2B, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7)
