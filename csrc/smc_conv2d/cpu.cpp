// The self-modulated weight of Eq. 3 and its gradients on the CPU.
//
// Read first: forward and backward, which are loops over the rows of the weight. A row holds the values of one output
// channel, [I, K] (contiguous) or [K, I] (channels_last) in memory. tile.h has the formulas and the names u, r and du.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "../cpu_threads.h"
#include "../cpu_vectors.h"
#include "../scalar_types.h"
#include "tile.h"

namespace litevae {
namespace {

struct RowShape {
    int64_t inputs, taps;  // I and K = kh * kw
    bool channels_last;
    int64_t size() const { return inputs * taps; }
};

// The kernels below work on one row of `size` values. All but SumRow are plain loops, which the compiler vectorises for
// each level. T is the dtype of the arithmetic, float or double, and Stored the dtype of a tensor in memory.

template <typename T, typename Stored>
struct LoadRow {
    template <int>
    static LITEVAE_INLINE void run(const Stored* source, int64_t size, T* result) {
        for (int64_t j = 0; j < size; j++) result[j] = load<T>(source[j]);
    }
};

// The sums over a row of u^2 and, with kGrad, of grad u, where u = s w. `scales` has each element's.
template <typename T, bool kGrad>
struct SumRow {
    template <int Bytes>
    static LITEVAE_INLINE void run(const T* w, const T* scales, const T* grad, int64_t size, T* sums) {
        using Values = Vector<T, Bytes>;
        constexpr int kVectors = 2, kStep = kVectors * Values::kLanes;  // in flight
        Values squares[kVectors] = {}, products[kVectors] = {};
        int64_t j = 0;
        for (; j + kStep <= size; j += kStep) {
            for (int k = 0; k < kVectors; k++) {
                const int64_t at = j + k * Values::kLanes;
                const Values u = Values::load(scales + at) * Values::load(w + at);
                squares[k] = squares[k] + u * u;
                if (kGrad) products[k] = products[k] + Values::load(grad + at) * u;
            }
        }
        T square = 0, product = 0;
        for (; j < size; j++) {
            const T u = scales[j] * w[j];
            square += u * u;
            if (kGrad) product += grad[j] * u;
        }
        const Values all_squares = squares[0] + squares[1], all_products = products[0] + products[1];
        for (int lane = 0; lane < Values::kLanes; lane++) {
            square += all_squares.value[lane], product += all_products.value[lane];
        }
        sums[0] = square, sums[1] = product;
    }
};

template <typename T, typename Stored>
struct StoreScaled {
    template <int>
    static LITEVAE_INLINE void run(const T* w, const T* scales, T factor, int64_t size, Stored* __restrict result) {
        for (int64_t j = 0; j < size; j++) store(factor * (scales[j] * w[j]), result[j]);
    }
};

// Stores the gradient of the weight, s du, and adds w du to `products`.
template <typename T, typename Stored>
struct StoreGradient {
    template <int>
    static LITEVAE_INLINE void run(const T* grad, const T* w, const T* scales, T r, T gain, T projection, int64_t size,
                                   T* __restrict products, Stored* __restrict result) {
        for (int64_t j = 0; j < size; j++) {
            const T du = smc_modulated_gradient(grad[j], scales[j] * w[j], r, gain, projection);
            products[j] += w[j] * du;
            store(scales[j] * du, result[j]);
        }
    }
};

// The sums over the taps of a row of products, into sums [I].
template <typename T>
struct SumOverTaps {
    template <int>
    static LITEVAE_INLINE void run(const T* products, RowShape shape, T* sums) {
        const int64_t inputs = shape.inputs, taps = shape.taps;
        if (shape.channels_last) {
            for (int64_t i = 0; i < inputs; i++) sums[i] = products[i];
            for (int64_t k = 1; k < taps; k++) {
                products += inputs;
                for (int64_t i = 0; i < inputs; i++) sums[i] += products[i];
            }
        } else {
            for (int64_t i = 0; i < inputs; i++, products += taps) {
                T sum = 0;
                for (int64_t k = 0; k < taps; k++) sum += products[k];
                sums[i] = sum;
            }
        }
    }
};

// A row in the dtype of the arithmetic: where it is if it has that dtype, else converted into `scratch`.
template <typename T>
const T* row_of(const void* tensor, Dtype dtype, int64_t first, int64_t size, T* scratch) {
    if (dtype == (sizeof(T) == 8 ? Dtype::float64 : Dtype::float32)) return static_cast<const T*>(tensor) + first;
    with_type(tensor, dtype, [&](auto* source) {
        using Stored = std::remove_const_t<std::remove_pointer_t<decltype(source)>>;
        dispatch<LoadRow<T, Stored>>(source + first, size, scratch);
    });
    return scratch;
}

// The scale of each element's input channel.
template <typename T>
std::vector<T> spread_scales(const T* scales, RowShape shape) {
    std::vector<T> result;
    result.reserve(static_cast<size_t>(shape.size()));
    if (shape.channels_last) {
        for (int64_t k = 0; k < shape.taps; k++) result.insert(result.end(), scales, scales + shape.inputs);
    } else {
        for (int64_t i = 0; i < shape.inputs; i++) result.insert(result.end(), size_t(shape.taps), scales[i]);
    }
    return result;
}

template <typename T>
void forward(const void* weight, Dtype weight_dtype, const T* scales, T gain, T eps, int64_t outputs, RowShape shape,
             void* result, Dtype result_dtype, int threads) {
    const int64_t size = shape.size();
    const std::vector<T> spread = spread_scales(scales, shape);
    parallel_for(outputs, threads, [&](int64_t first, int64_t last) {
        std::vector<T> scratch(static_cast<size_t>(size));
        for (int64_t o = first; o < last; o++) {
            const T *w = row_of(weight, weight_dtype, o * size, size, scratch.data()), *s = spread.data();
            T sums[2];
            dispatch<SumRow<T, false>>(w, s, w, size, &sums[0]);
            const T factor = gain * smc_inverse_norm(sums[0], eps);
            with_type(result, result_dtype, [&](auto* y) {
                using Stored = std::remove_pointer_t<decltype(y)>;
                dispatch<StoreScaled<T, Stored>>(w, s, factor, size, y + o * size);
            });
        }
    });
}

// scales_grad [I] and gain_grad [1] have the dtype of the arithmetic. Shares of kRowsOfAShare rows are summed in the
// order of the rows, so the result does not depend on the number of threads.
constexpr int64_t kRowsOfAShare = 8;

template <typename T>
void backward(const void* grad, Dtype grad_dtype, const void* weight, Dtype weight_dtype, const T* scales, T gain,
              T eps, int64_t outputs, RowShape shape, void* weight_grad, T* scales_grad, T* gain_grad, int threads) {
    const int64_t size = shape.size(), columns = shape.inputs + 1;
    const int64_t share_count = (outputs + kRowsOfAShare - 1) / kRowsOfAShare;
    const std::vector<T> spread = spread_scales(scales, shape);
    std::vector<T> shares(static_cast<size_t>(share_count * columns));  // [share_count, I + 1]
    parallel_for(share_count, threads, [&](int64_t first, int64_t last) {
        std::vector<T> rows(static_cast<size_t>(3 * size));
        T *const products = rows.data(), *const scratch = products + size;
        for (int64_t at = first; at < last; at++) {
            T* share = shares.data() + at * columns;
            std::fill_n(products, size, T(0));
            for (int64_t o = at * kRowsOfAShare; o < std::min(outputs, (at + 1) * kRowsOfAShare); o++) {
                const T *g = row_of(grad, grad_dtype, o * size, size, scratch), *s = spread.data();
                const T* w = row_of(weight, weight_dtype, o * size, size, scratch + size);
                T sums[2];
                dispatch<SumRow<T, true>>(w, s, g, size, &sums[0]);
                const T r = smc_inverse_norm(sums[0], eps), projection = r * sums[1];
                with_type(weight_grad, weight_dtype, [&](auto* result) {
                    using Stored = std::remove_pointer_t<decltype(result)>;
                    dispatch<StoreGradient<T, Stored>>(g, w, s, r, gain, projection, size, products, result + o * size);
                });
                share[shape.inputs] += projection;
            }
            dispatch<SumOverTaps<T>>(static_cast<const T*>(products), shape, share);
        }
    });
    std::fill_n(scales_grad, shape.inputs, T(0));
    *gain_grad = 0;
    for (int64_t at = 0; at < share_count; at++) {
        const T* share = shares.data() + at * columns;
        for (int64_t i = 0; i < shape.inputs; i++) scales_grad[i] += share[i];
        *gain_grad += share[shape.inputs];
    }
}

}  // namespace
}  // namespace litevae

// ---------------------------------------------------------------------------------------------------- C interface

// Weights are dense [O, I, K] or, channels_last, [O, K, I]. scales, scales_grad and gain_grad are float64 if the weight
// is, else float32. The struct is followed by the addresses of the results.
struct SmcArguments {
    const void *weight, *scales, *grad;  // the forward has its result in the place of grad
    int64_t weight_dtype, grad_dtype, outputs, inputs, taps, channels_last, threads;
    double gain, eps;
    void* result(int index) const { return reinterpret_cast<void* const*>(this + 1)[index]; }
};

LITEVAE_EXPORT void litevae_smc_weight(const SmcArguments* arguments) {
    using namespace litevae;
    const SmcArguments& a = *arguments;
    const RowShape shape{a.inputs, a.taps, a.channels_last != 0};
    const auto run = [&](auto arithmetic) {
        using T = decltype(arithmetic);
        forward<T>(a.weight, Dtype(a.weight_dtype), static_cast<const T*>(a.scales), T(a.gain), T(a.eps), a.outputs,
                   shape, a.result(0), Dtype(a.grad_dtype), int(a.threads));
    };
    Dtype(a.weight_dtype) == Dtype::float64 ? run(double()) : run(float());
}

LITEVAE_EXPORT void litevae_smc_weight_backward(const SmcArguments* arguments) {
    using namespace litevae;
    const SmcArguments& a = *arguments;
    const RowShape shape{a.inputs, a.taps, a.channels_last != 0};
    const auto run = [&](auto arithmetic) {
        using T = decltype(arithmetic);
        backward<T>(a.grad, Dtype(a.grad_dtype), a.weight, Dtype(a.weight_dtype), static_cast<const T*>(a.scales),
                    T(a.gain), T(a.eps), a.outputs, shape, a.result(0), static_cast<T*>(a.result(1)),
                    static_cast<T*>(a.result(2)), int(a.threads));
    };
    Dtype(a.weight_dtype) == Dtype::float64 ? run(double()) : run(float());
}
