// Threads of the CPU kernels, through OpenMP. Read first: parallel_for.
//
// OpenMP shares torch's pool of threads, since a process has one libgomp. The caller passes torch's thread count.
#pragma once
#include <cstdint>

#define LITEVAE_EXPORT extern "C" __attribute__((visibility("default")))

namespace litevae {

// Runs body(first, last) over [0, items) in contiguous shares, one for each thread.
template <typename Body>
void parallel_for(int64_t items, int threads, const Body& body) {
    if (items <= 0) return;
    if (threads > items) threads = int(items);
    if (threads == 1) return body(0, items);  // to start a team, even of one thread, takes a microsecond
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
    for (int share = 0; share < threads; share++) {
        body(items * share / threads, items * (share + 1) / threads);
    }
}

}  // namespace litevae
