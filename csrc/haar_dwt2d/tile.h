// The Haar transform of one 2x2 block: the arithmetic that the CPU and CUDA kernels share.
//
//     rows  a b      L = f (a + b + c + d)    H = f (a + b - c - d)
//           c d      V = f (a - b + c - d)    D = f (a - b - c + d)
//
// The 4x4 sign matrix is symmetric, and its own inverse up to a factor 4, so haar_block computes both directions.
#pragma once

#include "../inline.h"

namespace litevae {

template <typename T>
struct Four {
    T first, second, third, fourth;  // a b c d of a block, or L H V D of its sub-bands
};

// T is a number or a vector. The sums and differences of the two rows always come first, so that the results do not
// depend on how a kernel divides the work.
template <typename T, typename Factor>
LITEVAE_INLINE Four<T> haar_block(T a, T b, T c, T d, Factor factor) {
    const T left = a + c, right = b + d, left_step = a - c, right_step = b - d;
    return {factor * (left + right), factor * (left_step + right_step), factor * (left - right),
            factor * (left_step - right_step)};
}

}  // namespace litevae
