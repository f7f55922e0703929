"""Latents on disk: encoded once, read by diffusion models and distillation as often as they like."""
