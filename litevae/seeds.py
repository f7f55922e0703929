"""The seeds of a run: one for each random choice, derived from the run's own."""

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str, index: int) -> int:
    """A seed of its own for every (run seed, purpose, index): 63 bits, the same on every machine and process."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def derive_rng(seed: int, purpose: str, index: int) -> np.random.Generator:
    """A generator that starts from `derive_seed(seed, purpose, index)`."""
    return np.random.default_rng(derive_seed(seed, purpose, index))
