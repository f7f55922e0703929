"""Tables 8 to 10 of the paper (section 6): the adversarial weight, the high-frequency losses, the discriminator."""

from litevae.paper_tables.section5_tables import BASE_12, IMAGENET128_12
from litevae.paper_tables.structure import QUALITY, Row, Table

LATENT = "The paper calls the baseline's latent 32x32x12, which 128x128 images cannot have; Table 1 has 16x16x12."

TABLE_8 = Table(
    8,
    "The weight of the adversarial loss: adaptive (Eq. 2) and constant",
    IMAGENET128_12,
    QUALITY,
    [
        Row("8-adaptive", "adaptive", "1.01 | 0.07 | 29.24 | 0.86",
            ["imagenet128 model.latent_channels=12 loss=adaptive"]),
        Row("8-constant", "constant", "1.01 | 0.07 | 29.33 | 0.87", same_as=BASE_12),
    ],
    [LATENT, "The paragraph on this table names the KL term's weight in its heading; the adversarial one is meant."],
)  # fmt: skip

TABLE_9 = Table(
    9,
    "The two high-frequency losses",
    IMAGENET128_12,
    QUALITY,
    [
        Row("9-baseline", "baseline", "0.99 | 0.070 | 29.33 | 0.86",
            ["imagenet128 model.latent_channels=12 loss=no-high-frequency"]),
        Row("9-gaussian", "+ Gaussian", "0.99 | 0.070 | 29.64 | 0.87",
            ["imagenet128 model.latent_channels=12 loss=no-wavelet"]),
        Row("9-wavelet", "+ wavelet", "0.96 | 0.069 | 29.73 | 0.88", same_as=BASE_12,
            note="Taken as the Gaussian and the wavelet loss together: the rows build on each other."),
    ],
    [LATENT],
)  # fmt: skip

TABLE_10 = Table(
    10,
    "The discriminator",
    IMAGENET128_12,
    QUALITY,
    [
        Row("10-unet", "UNet", "1.01 | 0.070 | 29.24 | 0.86", same_as=BASE_12,
            note="Probably Table 8's adaptive run, whose numbers these are (`loss=adaptive` for all rows)."),
        Row("10-stylegan", "StyleGAN", "1.38 | 0.065 | 29.51 | 0.87",
            ["imagenet128 model.latent_channels=12 discriminator=stylegan"]),
        Row("10-patchgan", "PatchGAN", "1.61 | 0.063 | 29.61 | 0.87",
            ["imagenet128 model.latent_channels=12 discriminator=patchgan"]),
    ],
    [LATENT],
)  # fmt: skip

TABLES = (TABLE_8, TABLE_9, TABLE_10)
