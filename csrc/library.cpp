// Facts about the whole library, which litevae_kernels/native.py reads before it calls an operator.
#include "cpu_level.h"
#include "cpu_threads.h"

// The version of the C interface. litevae_kernels/native.py expects the same number: raise both with every change.
LITEVAE_EXPORT int litevae_native_interface() { return 6; }

LITEVAE_EXPORT int litevae_native_openmp() {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

// Whether this CPU and this build have a level. Changes nothing.
LITEVAE_EXPORT int litevae_native_has_level(int level) {
#if defined(LITEVAE_ONE_LEVEL)
    return level == int(litevae::level);
#else
    return level <= int(litevae::best_level());
#endif
}

// From now on the kernels use the level `most`, or the highest one below it that this CPU has. Returns that level.
LITEVAE_EXPORT int litevae_native_limit_level(int most) {
    litevae::limit_level(litevae::Level(most));
    return int(litevae::level);
}
