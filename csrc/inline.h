// How is the arithmetic of a tile.h compiled into its callers? Always inlined, on the host and on the device.
#pragma once

#if defined(__CUDACC__)
#define LITEVAE_INLINE __host__ __device__ __forceinline__
#else
#define LITEVAE_INLINE inline __attribute__((always_inline))
#endif
