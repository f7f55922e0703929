"""The tests of diffusion have a folder of their own, and one thread."""

from ..own_place import one_thread, own_place  # noqa: F401  (fixtures)
