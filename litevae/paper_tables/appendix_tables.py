"""Tables 11 to 24 of the paper (appendices B, D and F): encoders that are not learned, more ablations, the sizes."""

from litevae.paper_tables.section5_tables import (
    BASE_12,
    FFHQ128,
    IMAGENET128_12,
    IMAGENET256,
    IMAGENET256_12,
    IMAGENET256_LONG,
    diffusion,
)
from litevae.paper_tables.structure import AGGREGATION_PARAMETERS, QUALITY, RFID, Column, Row, Setting, Table

NO_DEEPFASHION = (
    "no recipe here is for DeepFashion; with a folder of it as data.path, the runs of FFHQ's rows fill this"
)
NO_SETTING = "The paper states neither resolution nor steps, nor the losses beside a decoder that is trained alone."
NO_NOISE = "A DWT latent has no posterior, so the rows have no KL term."
FIRST_OF_TABLE_9 = (
    "Tables 14 to 16 begin with the same numbers, Table 9's baseline but for 0.001 of LPIPS: probably without the two "
    "high-frequency losses (`loss=no-high-frequency` for both rows)."
)

TABLE_11 = Table(
    11,
    "The DWT as the encoder, on simple data sets",
    Setting(),
    [Column("n_z"), RFID],
    [
        Row("11-ffhq-sd-vae", "FFHQ, SD-VAE", "4 | 0.85", same_as="1-ffhq128-vae", setting=FFHQ128),
        Row("11-ffhq-dwt", "FFHQ, DWT", "12 | 0.70", ["ffhq128 model=dwt"], setting=Setting("FFHQ", 128, 12, 100_000)),
        Row("11-deepfashion-sd-vae", "DeepFashion, SD-VAE", "4 | 1.64", missing=NO_DEEPFASHION,
            setting=Setting("DeepFashion", None, 4)),
        Row("11-deepfashion-dwt", "DeepFashion, DWT", "12 | 1.71", missing=NO_DEEPFASHION,
            setting=Setting("DeepFashion", None, 12)),
    ],
    [
        f"{NO_SETTING} The commands have Table 1's FFHQ 128: 0.85 is near its VAE's 0.88 there, and not the 0.47 at "
        "256x256.",
        NO_NOISE,
    ],
)  # fmt: skip

TABLE_12 = Table(
    12,
    "The DWT as the encoder, on ImageNet",
    Setting("ImageNet"),
    [Column("n_z"), RFID],
    [
        Row("12-sd-vae", "SD-VAE", "4 | 0.80", same_as="1-imagenet256-vae", setting=IMAGENET256),
        Row("12-dwt", "DWT", "12 | 1.65", ["imagenet256-full train.steps=100000 model=dwt"], setting=IMAGENET256_12),
        Row("12-dwt-2", "DWT-2", "48 | 0.32", ["imagenet256-full train.steps=100000 model=dwt-2"],
            setting=Setting("ImageNet", 256, 48, 100_000)),
    ],
    [
        f"{NO_SETTING} The commands have Table 1's ImageNet 256, whose VAE has rFID 0.89: the nearest to 0.80.",
        "DWT-2 has the sub-bands of a finer level too, by space-to-depth: here all of the second level's, which hold "
        "the third's.",
        NO_NOISE,
    ],
)  # fmt: skip

TABLE_13 = Table(
    13,
    "Diffusion models in the latents of the DWT and of LiteVAE",
    Setting("FFHQ", 256),
    [Column("FID")],
    [
        Row("13-non-learned", "non-learned", "12.51", command=diffusion("ldm-dwt", "11-ffhq-dwt", "ffhq"),
            note="The paper does not say which of its two DWT encoders."),
        Row("13-litevae", "LiteVAE", "8.03", command=diffusion("ldm-ffhq256", "1-ffhq256-litevae", "ffhq"),
            note="Table 7's."),
    ],
)  # fmt: skip

TABLE_14 = Table(
    14,
    "The perceptual loss",
    IMAGENET128_12,
    QUALITY,
    [
        Row("14-lpips", "LPIPS", "0.99 | 0.071 | 29.33 | 0.86", same_as=BASE_12),
        Row("14-esrgan", "ESRGAN", "0.78 | 0.071 | 28.53 | 0.84",
            ["imagenet128 model.latent_channels=12 perceptual=esrgan"]),
    ],
    [FIRST_OF_TABLE_9],
)  # fmt: skip

TABLE_15 = Table(
    15,
    "Locally discriminative learning (LDL)",
    IMAGENET128_12,
    QUALITY,
    [
        Row("15-without-ldl", "without LDL", "0.99 | 0.071 | 29.33 | 0.86",
            ["imagenet128 model.latent_channels=12 train.ema_decay=0.999"],
            note="LDL needs averaged weights, which are then what is measured: this row has them too."),
        Row("15-with-ldl", "with LDL", "0.98 | 0.071 | 29.33 | 0.87",
            ["imagenet128 model.latent_channels=12 loss=ldl"]),
    ],
    [FIRST_OF_TABLE_9],
)  # fmt: skip

TABLE_16 = Table(
    16,
    "The kind of adversarial loss",
    IMAGENET128_12,
    QUALITY,
    [
        Row("16-hinge", "hinge", "0.99 | 0.071 | 29.33 | 0.86", same_as=BASE_12),
        Row("16-logistic", "logistic", "1.00 | 0.068 | 29.67 | 0.88",
            ["imagenet128 model.latent_channels=12 loss=logistic"]),
    ],
    [FIRST_OF_TABLE_9],
)  # fmt: skip

TABLE_17 = Table(
    17,
    "1x1 convolutions on both sides of the latent",
    IMAGENET256,
    QUALITY,
    [
        Row("17-with", "with", "2.04 | 0.190 | 25.61 | 0.72", ["imagenet256-full train.steps=100000 model=quant-conv"]),
        Row("17-without", "without", "0.87 | 0.157 | 26.02 | 0.74", same_as="1-imagenet256-litevae"),
    ],
    ["The paper states 256x256 alone; the second row is Table 1's ImageNet 256 with n_z 4."],
)  # fmt: skip

TABLE_18 = Table(
    18,
    "The network that extracts features",
    IMAGENET128_12,
    QUALITY,
    [
        Row("18-unet", "UNet", "0.94 | 0.069 | 29.55 | 0.87", same_as=BASE_12, note="Table 2a's LiteVAE-B."),
        Row("18-nafnet", "NAFNet", "0.93 | 0.069 | 29.36 | 0.87",
            ["imagenet128 model.latent_channels=12 model=nafnet"]),
    ],
    ["The paper gives the NAFNet neither width nor depth. Here 128 channels and 14 blocks, with as many parameters as "
     "the UNet (0.4 % more)."],
)  # fmt: skip

TABLE_19 = Table(
    19,
    "One UNet that extracts the features of all levels",
    IMAGENET256_LONG,
    QUALITY,
    [
        Row("19-separate", "separate", "0.75 | 0.153 | 26.10 | 0.73", same_as="5-256-full", note="Table 5's 256-full."),
        Row("19-shared", "shared", "0.78 | 0.154 | 26.05 | 0.73",
            ["imagenet256-full model=shared"]),
    ],
    ["The paper states no setting; the first row is Table 5's. What is shared is the UNet alone: the strided "
     "convolutions after it, whose strides differ, stay one for each level."],
)  # fmt: skip

TABLE_20 = Table(
    20,
    "The network that aggregates features",
    IMAGENET128_12,
    [AGGREGATION_PARAMETERS, *QUALITY],
    [
        Row("20-unet", "UNet", "1.69 | 0.94 | 0.069 | 29.25 | 0.86", same_as=BASE_12,
            note="rFID and LPIPS are those of Table 2a's LiteVAE-B, PSNR and SSIM those of its VAE (B has 29.55 and "
            "0.87): a slip, or another run."),
        Row("20-vit", "ViT", "0.84 | 0.92 | 0.070 | 29.44 | 0.87",
            ["imagenet128 model.latent_channels=12 model=vit"]),
    ],
    ["The paper gives the ViT neither width, depth nor positions. Here 128 channels, 4 blocks and 16x16 learned "
     "positions (128x128 pixels): among designs of usual sizes the only one that has the printed 0.84 M, at n_z 4 as "
     "the other counts of the paper. At n_z 12 it has 0.859 M, and the UNet 1.697 M."],
)  # fmt: skip

TABLE_21 = Table(
    21,
    "Features of all wavelet levels, and without the finest",
    IMAGENET256,
    QUALITY,
    [
        Row("21-all", "all sub-bands", "0.87 | 0.157 | 26.02 | 0.74", same_as="1-imagenet256-litevae"),
        Row("21-last-two", "last two", "1.20 | 0.17 | 26.04 | 0.74",
            ["imagenet256-full train.steps=100000 model=last-two-levels"]),
    ],
    ["The last two are taken as levels 2 and 3, of which the aggregation reads 24 channels. The paper states ImageNet "
     "alone; the first row is Table 1's ImageNet 256 with n_z 4."],
)  # fmt: skip

TABLE_22 = Table(
    22,
    "Training the VAE at 128x128 first",
    IMAGENET256_LONG,
    QUALITY,
    [
        Row("22-256-full", "256-full", "0.67 | 0.150 | 26.01 | 0.74", ["imagenet256-full model=sd-vae"]),
        Row("22-128-full", "128-full", "0.89 | 0.161 | 25.83 | 0.73",
            ["imagenet128 train.steps=150000 data.evaluation_size=256 model=sd-vae"],
            note="Table 1 prints these rFID, PSNR and SSIM for 100,000 steps at 256x256."),
        Row("22-128-tuned", "128-tuned", "0.69 | 0.151 | 25.97 | 0.73",
            ["imagenet128 train.steps=100000 model=sd-vae", "imagenet256-tuned model=sd-vae"]),
    ],
    ["As Table 5. All three rFID are better than LiteVAE's there, all three PSNR worse."],
)  # fmt: skip

_SIZES = [Column("in"), Column("out"), Column("channels"), Column("multipliers")]
_PRESET = "python -c \"from litevae.config import PRESETS; print(PRESETS['{}'])\""

TABLE_23 = Table(
    23,
    "Feature extraction of the sizes",
    Setting(),
    _SIZES,
    [
        Row("23-litevae-s", "LiteVAE-S", "12 | 12 | 16 | (1, 2, 2)", command=_PRESET.format("S")),
        Row("23-litevae-b", "LiteVAE-B", "12 | 12 | 32 | (1, 2, 3)", command=_PRESET.format("B")),
        Row("23-litevae-m", "LiteVAE-M", "12 | 12 | 64 | (1, 2, 4)", command=_PRESET.format("M")),
        Row("23-litevae-l", "LiteVAE-L", "12 | 12 | 64 | (1, 2, 4)", command=_PRESET.format("L")),
    ],
)  # fmt: skip

TABLE_24 = Table(
    24,
    "Feature aggregation of the sizes",
    Setting(),
    _SIZES,
    [
        Row("24-litevae-s", "LiteVAE-S", "36 | n_z | 16 | (1, 2, 2)", command=_PRESET.format("S")),
        Row("24-litevae-b", "LiteVAE-B", "36 | n_z | 32 | (1, 2, 3)", command=_PRESET.format("B")),
        Row("24-litevae-m", "LiteVAE-M", "36 | n_z | 32 | (1, 2, 3)", command=_PRESET.format("M")),
        Row("24-litevae-l", "LiteVAE-L", "36 | n_z | 64 | (1, 2, 4)", command=_PRESET.format("L")),
    ],
    ["Each UNet puts out 2 n_z channels, mean and log-variance, as the paper's pseudocode does."],
)  # fmt: skip

TABLES = (
    TABLE_11,
    TABLE_12,
    TABLE_13,
    TABLE_14,
    TABLE_15,
    TABLE_16,
    TABLE_17,
    TABLE_18,
    TABLE_19,
    TABLE_20,
    TABLE_21,
    TABLE_22,
    TABLE_23,
    TABLE_24,
)
