"""What surrounds the loop of litevae/train.py: config and recipes, run folder, checkpoints, evaluation.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""
