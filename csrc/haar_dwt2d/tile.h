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

template <typename T>
LITEVAE_INLINE Four<T> haar_block(T a, T b, T c, T d, T factor) {
    const T top = a + b, bottom = c + d, top_step = a - b, bottom_step = c - d;
    return {factor * (top + bottom), factor * (top - bottom), factor * (top_step + bottom_step),
            factor * (top_step - bottom_step)};
}

}  // namespace litevae
