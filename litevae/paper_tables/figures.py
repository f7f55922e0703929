"""Figures 1 to 9 of the paper: what they show, what can be read off them, and the commands that draw the like."""

from litevae.paper_tables.structure import Figure

_SAMPLES = "python -m litevae.sample runs/ldm-ffhq256 --images {} --output figure{}.png"
_RECONSTRUCT = "python -m litevae.reconstruct photo.jpg --model {}"
_CURVES = "python -m litevae.paper figure {} --results {} --output figure{}.png"

FIGURES = {
    figure.number: figure
    for figure in (
        Figure(
            1,
            "The data-flow of LiteVAE",
            "image, three wavelet levels, a UNet for each, aggregation, latent, decoder; the UNet's blocks",
            missing="a drawing of the architecture; litevae/models/litevae.py has it in words",
        ),
        Figure(
            2,
            "An image and the latent of Stable Diffusion's VAE",
            "the first three channels of the latent as red, green and blue",
            command=_RECONSTRUCT.format("runs/1-imagenet256-vae"),
        ),
        Figure(
            3,
            "Feature maps of the decoder's last block, with GroupNorm and with SMC",
            "two examples of each; with GroupNorm small areas are far stronger than the rest",
            command="python -m litevae.paper figure 3 --models runs/1-imagenet128-12-litevae runs/4-smc "
            "--output figure3.png",
            notes=[
                "The paper does not say which channels are shown, nor how they are reduced to one picture.",
                "Ours shows the channels with the largest root mean square, and how they are over the median's.",
            ],
        ),
        Figure(
            4,
            "An image, its reconstruction and its latent, by LiteVAE",
            "the first three channels of the latent as red, green and blue",
            command=_RECONSTRUCT.format("runs/1-imagenet256-litevae"),
        ),
        Figure(
            5,
            "Quality over resolutions: LiteVAE and the VAE",
            "log2 of the side 5 to 9; rFID 0 to 50, PSNR 20 to 30 dB, SSIM 0.7 to 0.9, LPIPS 0.1 to 0.25 (ticks); "
            "LiteVAE loses less at other resolutions",
            command=_CURVES.format(5, "evaluations/vae/results.json evaluations/litevae/results.json", 5),
            notes=["The paper states neither data set, n_z nor the resolution of training; the axes suggest n_z 4."],
        ),
        Figure(6, "Samples of the FFHQ diffusion model", "faces", command=_SAMPLES.format(16, 6)),
        Figure(
            7,
            "Norm of the adversarial loss's gradient relative to the reconstruction loss's, over training",
            "40 to 200 thousand steps, 10^0 to 10^4, constant and adaptive weight; the adaptive one is the more uneven",
            command="python -m litevae.paper figure 7 --runs runs/8-adaptive runs/1-imagenet128-12-litevae "
            "--output figure7.png",
            notes=[
                "The paper does not say of which parameters; Eq. (2) takes the decoder's last layer, and so do we.",
                "The run with a constant weight is to be trained with train.gradient_ratio_every=100.",
            ],
        ),
        Figure(
            8,
            "Quality over resolutions: the decoder with SMC and with GroupNorm",
            "log2 of the side 5 to 8; rFID 0 to 15, PSNR 22 to 30 dB, SSIM 0.75 to 0.85, LPIPS 0.06 to 0.18 (ticks); "
            "SMC loses less at other resolutions",
            command=_CURVES.format(8, "evaluations/smc/results.json evaluations/group-norm/results.json", 8),
            notes=["Probably Table 4's two models: ImageNet 128, n_z 12."],
        ),
        Figure(9, "More samples of the FFHQ diffusion model", "faces, not chosen", command=_SAMPLES.format(64, 9)),
    )
}
