// How do the CPU kernels use the machine? Threads through OpenMP, vector units through function clones.
//
// OpenMP shares torch's thread pool (one libgomp a process); the caller passes torch's thread count.
// Clones are chosen when the library loads, so one build runs well on every x86-64 CPU.
#pragma once
#include <cstdint>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define LITEVAE_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LITEVAE_VECTOR_CLONES
#endif

#define LITEVAE_EXPORT extern "C" __attribute__((visibility("default")))

namespace litevae {

// Runs body(first, last) over [0, items) in contiguous shares, one a thread.
template <typename Body>
void parallel_for(int64_t items, int threads, const Body& body) {
    if (items <= 0) return;
    if (threads > items) threads = int(items);
    if (threads == 1) return body(0, items);  // a team of one takes a microsecond to start
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
    for (int share = 0; share < threads; share++) {
        body(items * share / threads, items * (share + 1) / threads);
    }
}

}  // namespace litevae
