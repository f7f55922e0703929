// Which sides has a level, and where in the image does a pixel past its edge come from? Shared by the CUDA kernels.
#pragma once

#include "../scalar_types.h"
#include "tile.h"

namespace litevae {

// The arithmetic's type: double where the image or the sub-bands are.
template <typename A, typename B>
struct WiderType { using Type = float; };
template <typename B>
struct WiderType<double, B> { using Type = double; };
template <typename A>
struct WiderType<A, double> { using Type = double; };
template <>
struct WiderType<double, double> { using Type = double; };
template <typename A, typename B>
using Wider = typename WiderType<A, B>::Type;

// ceil(side / 2^level): rounding up at every level is rounding up once.
LITEVAE_INLINE int64_t side_at(int64_t side, int level) { return (side + (int64_t(1) << level) - 1) >> level; }

// Position `at` of an image whose every level, from the coarsest down, repeats its last row or column.
template <int kLevels>
LITEVAE_INLINE int64_t extended(int64_t at, int64_t side) {
    int64_t position = at >> kLevels;
    if (position >= side_at(side, kLevels)) position = side_at(side, kLevels) - 1;
#pragma unroll
    for (int level = kLevels - 1; level >= 0; level--) {
        const int64_t inside = side_at(side, level);
        position = 2 * position + ((at >> level) & 1);
        position = position < inside ? position : inside - 1;
    }
    return position;
}

}  // namespace litevae
