"""A LiteVAE encoder for the latents of another autoencoder: the parts of a distillation's run."""
