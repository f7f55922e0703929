"""Images too large for memory: exact tiles, streams of rows, blended tiles. Read first large_images.py, the methods.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses

layers.py: a network as a list of layers, each with the window of its input that an output position reads (windows.py).
rows.py runs such a list from top to bottom, on all columns or a band of them. partial_conv2d.py: one convolution of a
part, rounded as in the whole. statistics.py: GroupNorm over tiles. blending.py: diffusers' way, which is not exact.
memory.py: which size fits a budget. streaming.py: `decode_rows` and `encode_rows`.
"""
