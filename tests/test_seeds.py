"""Are derived seeds fixed and distinct?"""

from litevae.seeds import derive_rng, derive_seed


def test_derived_seeds_are_fixed_and_distinct() -> None:
    # A changed derivation would change every run, and break the resuming of older ones.
    assert derive_seed(0, "crop", 0) == 3390204253855563014
    seeds = {derive_seed(*key) for key in [(0, "crop", 0), (0, "crop", 1), (0, "noise", 0), (1, "crop", 0)]}
    assert len(seeds) == 4
    assert derive_rng(1, "crop", 2).random() == derive_rng(1, "crop", 2).random() != derive_rng(1, "crop", 3).random()
