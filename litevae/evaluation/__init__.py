"""Measuring a model: metrics.py, reconstruction.py, held_out.py (means over a stream), latents.py, figures.py."""
