"""Measuring a model: metrics, reconstructions of held-out images, figures."""
