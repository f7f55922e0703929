// The self-modulated weight of Eq. 3 and its gradients on the CPU.
//
// Read first: forward and backward, which are loops over the rows of the weight. A row holds the values of one output
// channel, [I, K] (contiguous) or [K, I] (channels_last) in memory. tile.h has the formulas and the names u, r and du.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "../cpu_level.h"
#include "../cpu_threads.h"
#include "../scalar_types.h"
#include "tile.h"

namespace litevae {
namespace {

struct RowShape {
    int64_t inputs, taps;  // I and K = kh * kw
    bool channels_last;
    int64_t size() const { return inputs * taps; }
};

// The kernels below work on one row of `size` values. They are plain loops, which the compiler vectorises for each
// level, so none of them uses the vector size that `run` takes. T is the dtype of the arithmetic, float or double, and
// Stored the dtype of a tensor in memory.

template <typename T, typename Stored>
struct LoadRow {
    template <int>
    static LITEVAE_INLINE void run(const Stored* source, int64_t size, T* result) {
        for (int64_t j = 0; j < size; j++) result[j] = load<T>(source[j]);
    }
};

template <typename T>
struct Multiply {
    template <int>
    static LITEVAE_INLINE void run(const T* a, const T* b, int64_t size, T* result) {
        for (int64_t j = 0; j < size; j++) result[j] = a[j] * b[j];
    }
};

template <typename T>
struct Dot {
    template <int>
    static LITEVAE_INLINE void run(const T* a, const T* b, int64_t size, T* result) {
        constexpr int kLanes = 16;  // partial sums: vectorisable, and more accurate than one running sum
        T partial[kLanes] = {};
        int64_t j = 0;
        for (; j + kLanes <= size; j += kLanes) {
            for (int lane = 0; lane < kLanes; lane++) partial[lane] += a[j + lane] * b[j + lane];
        }
        T sum = 0;
        for (; j < size; j++) sum += a[j] * b[j];
        for (T value : partial) sum += value;
        *result = sum;
    }
};

template <typename T>
T dot(const T* a, const T* b, int64_t size) {
    T result;
    dispatch<Dot<T>>(a, b, size, &result);
    return result;
}

template <typename T, typename Stored>
struct StoreScaled {
    template <int>
    static LITEVAE_INLINE void run(const T* source, T factor, int64_t size, Stored* result) {
        for (int64_t j = 0; j < size; j++) store(factor * source[j], result[j]);
    }
};

// Replaces u by du, and stores the gradient of the weight, s du.
template <typename T, typename Stored>
struct StoreGradient {
    template <int>
    static LITEVAE_INLINE void run(const T* grad, const T* scales, T r, T gain, T projection, int64_t size, T* u,
                                   Stored* result) {
        for (int64_t j = 0; j < size; j++) {
            u[j] = smc_modulated_gradient(grad[j], u[j], r, gain, projection);
            store(scales[j] * u[j], result[j]);
        }
    }
};

// Adds the row's part of the gradient of the scales [I] to `sums`: w du summed over taps.
template <typename T>
struct AddOverTaps {
    template <int>
    static LITEVAE_INLINE void run(const T* w, const T* du, RowShape shape, T* sums) {
        const int64_t inputs = shape.inputs, taps = shape.taps;
        if (shape.channels_last) {
            for (int64_t k = 0; k < taps; k++, w += inputs, du += inputs) {
                for (int64_t i = 0; i < inputs; i++) sums[i] += w[i] * du[i];
            }
        } else {
            for (int64_t i = 0; i < inputs; i++, w += taps, du += taps) {
                T sum = sums[i];
                for (int64_t k = 0; k < taps; k++) sum += w[k] * du[k];
                sums[i] = sum;
            }
        }
    }
};

template <typename T>
void load_row(const void* tensor, Dtype dtype, int64_t first, int64_t size, T* result) {
    with_type(tensor, dtype, [&](auto* source) {
        using Stored = std::remove_const_t<std::remove_pointer_t<decltype(source)>>;
        dispatch<LoadRow<T, Stored>>(source + first, size, result);
    });
}

// The scale of each element's input channel.
template <typename T>
std::vector<T> spread_scales(const T* scales, RowShape shape) {
    std::vector<T> result(static_cast<size_t>(shape.size()));
    for (int64_t j = 0; j < shape.size(); j++) {
        result[size_t(j)] = scales[shape.channels_last ? j % shape.inputs : j / shape.taps];
    }
    return result;
}

template <typename T>
void forward(const void* weight, Dtype weight_dtype, const T* scales, T gain, T eps, int64_t outputs, RowShape shape,
             void* result, Dtype result_dtype, int threads) {
    const int64_t size = shape.size();
    const std::vector<T> spread = spread_scales(scales, shape);
    parallel_for(outputs, threads, [&](int64_t first, int64_t last) {
        std::vector<T> row(static_cast<size_t>(size));
        T* u = row.data();
        for (int64_t o = first; o < last; o++) {
            load_row(weight, weight_dtype, o * size, size, u);
            dispatch<Multiply<T>>(u, spread.data(), size, u);
            const T r = smc_inverse_norm(dot<T>(u, u, size), eps);
            with_type(result, result_dtype, [&](auto* y) {
                using Stored = std::remove_pointer_t<decltype(y)>;
                dispatch<StoreScaled<T, Stored>>(u, gain * r, size, y + o * size);
            });
        }
    });
}

// scales_grad [I] and gain_grad [1] have the dtype of the arithmetic. by_row [O, I + 1] holds each row's part of them.
// The parts are summed in the order of the rows, so the result does not depend on the number of threads.
template <typename T>
void backward(const void* grad, Dtype grad_dtype, const void* weight, Dtype weight_dtype, const T* scales, T gain,
              T eps, int64_t outputs, RowShape shape, void* weight_grad, T* scales_grad, T* gain_grad, int threads) {
    const int64_t size = shape.size(), parts = shape.inputs + 1;
    const std::vector<T> spread = spread_scales(scales, shape);
    std::vector<T> by_row(static_cast<size_t>(outputs * parts));
    parallel_for(outputs, threads, [&](int64_t first, int64_t last) {
        std::vector<T> rows(static_cast<size_t>(3 * size));
        T *const g = rows.data(), *const w = g + size, *const u = w + size;
        for (int64_t o = first; o < last; o++) {
            load_row(grad, grad_dtype, o * size, size, g);
            load_row(weight, weight_dtype, o * size, size, w);
            dispatch<Multiply<T>>(w, spread.data(), size, u);
            const T r = smc_inverse_norm(dot<T>(u, u, size), eps), projection = r * dot<T>(g, u, size);
            with_type(weight_grad, weight_dtype, [&](auto* result) {
                using Stored = std::remove_pointer_t<decltype(result)>;
                dispatch<StoreGradient<T, Stored>>(g, spread.data(), r, gain, projection, size, u, result + o * size);
            });
            T* part = by_row.data() + o * parts;
            dispatch<AddOverTaps<T>>(w, u, shape, part);
            part[shape.inputs] = projection;
        }
    });
    std::fill_n(scales_grad, shape.inputs, T(0));
    *gain_grad = 0;
    for (int64_t o = 0; o < outputs; o++) {
        const T* part = by_row.data() + o * parts;
        for (int64_t i = 0; i < shape.inputs; i++) scales_grad[i] += part[i];
        *gain_grad += part[shape.inputs];
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
