// What happens to one 2x2 block? The arithmetic of the Haar transform, shared by every C++ kernel.
//
//     rows  a b      L = f (a + b + c + d)    H = f (a + b - c - d)
//           c d      V = f (a - b + c - d)    D = f (a - b - c + d)
//
// The 4x4 sign matrix is symmetric and its own inverse up to a factor 4, so one function serves both ways.
#pragma once

#include "../inline.h"

namespace litevae {

template <typename T>
struct Four {
    T first, second, third, fourth;  // a b c d of a block, or L H V D of its sub-bands
};

// T is a number or a vector of them. Sums and differences of the rows come first, always: a row of them is half done
// before its columns are taken apart, and results do not depend on how the work is cut up.
template <typename T, typename Factor>
LITEVAE_INLINE Four<T> haar_block(T a, T b, T c, T d, Factor factor) {
    const T left = a + c, right = b + d, left_step = a - c, right_step = b - d;
    return {factor * (left + right), factor * (left_step + right_step), factor * (left - right),
            factor * (left_step - right_step)};
}

}  // namespace litevae
