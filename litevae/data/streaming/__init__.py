"""Streams and shards: sources of samples that are not a folder of images."""
