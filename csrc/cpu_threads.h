// Threads of the CPU kernels, through OpenMP. Read first: parallel_for and in_team.
//
// OpenMP shares torch's pool of threads, since a process has one libgomp. The caller passes torch's thread count.
#pragma once
#include <cstdint>
#if defined(_OPENMP)
#include <omp.h>
#endif

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

// Runs body(thread, threads) in each of `threads` threads, or in one where OpenMP does not give so many.
// wait_for_team() in it waits until all of them have come there.
template <typename Body>
void in_team(int threads, const Body& body) {
    if (threads == 1) return body(0, 1);
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num();
        if (omp_get_num_threads() == threads) body(thread, threads);
        else if (thread == 0) body(0, 1);
    }
#else
    body(0, 1);
#endif
}
inline void wait_for_team() {
#if defined(_OPENMP)
#pragma omp barrier
#endif
}

}  // namespace litevae
