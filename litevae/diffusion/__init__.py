"""Latent diffusion: models of the latents of an autoencoder that stays as it is."""
