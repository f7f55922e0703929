// How does a GPU thread move several neighbouring elements at once? As one pack, up to 16 bytes an instruction.
#pragma once

#include "inline.h"

#define LITEVAE_DEVICE __device__ __forceinline__

namespace litevae {

// kCount elements side by side; kCount a power of two. Above 16 bytes it takes several instructions.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
    T values[kCount];
};

template <typename T, int kCount>
LITEVAE_INLINE bool is_aligned(const T* address) {
    return reinterpret_cast<uint64_t>(address) % alignof(Pack<T, kCount>) == 0;
}

template <int kCount, typename T>
LITEVAE_INLINE Pack<T, kCount> load_pack(const T* address) {
    return *reinterpret_cast<const Pack<T, kCount>*>(address);
}

template <int kCount, typename T>
LITEVAE_INLINE void store_pack(const Pack<T, kCount>& pack, T* address) {
    *reinterpret_cast<Pack<T, kCount>*>(address) = pack;
}

}  // namespace litevae
