// The formulas of Eq. 3 and its gradient for one row of the weight: the arithmetic that the CPU and CUDA kernels share.
//
//     u = s w,  r = (sum u^2 + eps)^(-1/2),  v = r u,  w' = gain v
//     du = gain r (grad - v sum(grad v)),  dw = s du,  ds = w du summed over rows
#pragma once

#include "../inline.h"

namespace litevae {

LITEVAE_INLINE float smc_inverse_norm(float sum_of_squares, float eps) { return 1 / ::sqrtf(sum_of_squares + eps); }
LITEVAE_INLINE double smc_inverse_norm(double sum_of_squares, double eps) { return 1 / ::sqrt(sum_of_squares + eps); }

// projection = sum(grad v) over the row.
template <typename T>
LITEVAE_INLINE T smc_modulated_gradient(T grad, T modulated, T r, T gain, T projection) {
    return gain * r * (grad - r * modulated * projection);
}

}  // namespace litevae
