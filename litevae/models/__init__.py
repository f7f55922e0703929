"""The networks. Read first litevae.py, the whole; then encoder.py and unet.py, blocks.py, latent.py, decoder.py.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses

serving.py: less memory, more speed; tiling/: large images. pretrained.py: what is checked on loading.
initialize.py: how weights start; wavelet_start.py: as a wavelet codec.
baseline.py: Stable Diffusion's autoencoder in LiteVAE's place. fuse.py: the autoencoders of diffusers, faster.
hybrid.py: LiteVAE's encoder before a diffusers autoencoder's decoder; teacher.py: which of them it can be.
discriminators/: the networks of the adversarial loss.
"""

from litevae import torchvision_shim

torchvision_shim.install()  # before diffusers, whose modules of autoencoders import torchvision
