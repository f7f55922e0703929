"""What do the operators and the encoders cost? `pytest benchmarks --benchmark-only`, see README.md.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses   (any stage)
"""
