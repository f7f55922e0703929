"""Measuring a model: metrics.py, reconstruction.py, held_out.py (their means over a stream of images), figures.py."""
