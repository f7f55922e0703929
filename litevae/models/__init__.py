"""Where are the networks? `litevae.py` is the whole; `encoder.py`, `latent.py` and `decoder.py` are its parts.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""
