"""The tests of distillation have a folder of their own, and one thread."""

import litevae.models.litevae  # noqa: F401  (before diffusers, whose imports need its shim)

from ..own_place import one_thread, own_place  # noqa: F401  (fixtures)
