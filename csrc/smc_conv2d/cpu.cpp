// How does the CPU make the self-modulated weight of Eq. 3, and its gradients?
//
// One output row a step: a pass for the sum, a pass that writes. A row is [I, K] in memory (contiguous) or [K, I]
// (channels_last). The gradient of the scales is summed over rows in their order, whatever the number of threads.
#include <vector>

#include "../parallel.h"
#include "../scalar_types.h"
#include "tile.h"

namespace litevae {
namespace {

struct RowShape {
    int64_t inputs, taps;  // I and K = kh * kw
    bool channels_last;
    int64_t size() const { return inputs * taps; }
};

// A row spread out to the arithmetic type: weights w, and the scale of each element's input channel.
template <typename T, typename Stored>
LITEVAE_VECTOR_CLONES void load_values(const Stored* source, int64_t size, T* result) {
    for (int64_t j = 0; j < size; j++) result[j] = load<T>(source[j]);
}

template <typename T>
void spread_scales(const T* scales, RowShape shape, T* result) {
    for (int64_t j = 0; j < shape.size(); j++) {
        result[j] = scales[shape.channels_last ? j % shape.inputs : j / shape.taps];
    }
}

template <typename T>
LITEVAE_VECTOR_CLONES T dot(const T* a, const T* b, int64_t size) {
    constexpr int kLanes = 16;  // partial sums: vectorisable, and more accurate than one running sum
    T partial[kLanes] = {};
    int64_t j = 0;
    for (; j + kLanes <= size; j += kLanes) {
        for (int lane = 0; lane < kLanes; lane++) partial[lane] += a[j + lane] * b[j + lane];
    }
    T sum = 0;
    for (; j < size; j++) sum += a[j] * b[j];
    for (T value : partial) sum += value;
    return sum;
}

template <typename T>
LITEVAE_VECTOR_CLONES void multiply(const T* a, const T* b, int64_t size, T* result) {
    for (int64_t j = 0; j < size; j++) result[j] = a[j] * b[j];
}

template <typename T, typename Stored>
LITEVAE_VECTOR_CLONES void store_scaled(const T* source, T factor, int64_t size, Stored* result) {
    for (int64_t j = 0; j < size; j++) store(factor * source[j], result[j]);
}

// modulated becomes du; the weight's gradient s du is stored.
template <typename T, typename Stored>
LITEVAE_VECTOR_CLONES void store_gradient(const T* grad, const T* scales, T r, T gain, T projection, int64_t size,
                                          T* modulated, Stored* result) {
    for (int64_t j = 0; j < size; j++) {
        modulated[j] = smc_modulated_gradient(grad[j], modulated[j], r, gain, projection);
        store(scales[j] * modulated[j], result[j]);
    }
}

// The row's share [I] of the scales' gradient: w du summed over taps.
template <typename T>
LITEVAE_VECTOR_CLONES void add_over_taps(const T* w, const T* du, RowShape shape, T* share) {
    const int64_t inputs = shape.inputs, taps = shape.taps;
    if (shape.channels_last) {
        for (int64_t k = 0; k < taps; k++, w += inputs, du += inputs) {
            for (int64_t i = 0; i < inputs; i++) share[i] += w[i] * du[i];
        }
    } else {
        for (int64_t i = 0; i < inputs; i++, w += taps, du += taps) {
            for (int64_t k = 0; k < taps; k++) share[i] += w[k] * du[k];
        }
    }
}

template <typename T>
void forward(const void* weight, Dtype weight_dtype, const T* scales, T gain, T eps, int64_t outputs, RowShape shape,
             void* result, Dtype result_dtype, int threads) {
    const int64_t size = shape.size();
    std::vector<T> spread(static_cast<size_t>(size));
    spread_scales(scales, shape, spread.data());
    parallel_for(outputs, threads, [&](int64_t first, int64_t last) {
        std::vector<T> row(static_cast<size_t>(size));
        for (int64_t o = first; o < last; o++) {
            with_type(weight, weight_dtype, [&](auto* w) { load_values(w + o * size, size, row.data()); });
            multiply(row.data(), spread.data(), size, row.data());
            const T r = smc_inverse_norm(dot(row.data(), row.data(), size), eps);
            with_type(result, result_dtype, [&](auto* y) { store_scaled(row.data(), gain * r, size, y + o * size); });
        }
    });
}

// scales_grad [I] and gain_grad [1] are of the arithmetic type; by_row holds each row's share of them, [O, I + 1].
template <typename T>
void backward(const void* grad, Dtype grad_dtype, const void* weight, Dtype weight_dtype, const T* scales, T gain,
              T eps, int64_t outputs, RowShape shape, void* weight_grad, T* scales_grad, T* gain_grad, int threads) {
    const int64_t size = shape.size(), shares = shape.inputs + 1;
    std::vector<T> spread(static_cast<size_t>(size)), by_row(static_cast<size_t>(outputs * shares));
    spread_scales(scales, shape, spread.data());
    parallel_for(outputs, threads, [&](int64_t first, int64_t last) {
        std::vector<T> rows(static_cast<size_t>(3 * size));
        T *g = rows.data(), *w = g + size, *u = w + size;
        for (int64_t o = first; o < last; o++) {
            with_type(grad, grad_dtype, [&](auto* source) { load_values(source + o * size, size, g); });
            with_type(weight, weight_dtype, [&](auto* source) { load_values(source + o * size, size, w); });
            multiply(w, spread.data(), size, u);
            const T r = smc_inverse_norm(dot(u, u, size), eps), projection = r * dot(g, u, size);
            with_type(weight_grad, weight_dtype, [&](auto* result) {
                store_gradient(g, spread.data(), r, gain, projection, size, u, result + o * size);
            });
            T* share = by_row.data() + o * shares;
            add_over_taps(w, u, shape, share);
            share[shape.inputs] = projection;
        }
    });
    for (int64_t i = 0; i < shape.inputs; i++) scales_grad[i] = 0;
    *gain_grad = 0;
    for (int64_t o = 0; o < outputs; o++) {
        const T* share = by_row.data() + o * shares;
        for (int64_t i = 0; i < shape.inputs; i++) scales_grad[i] += share[i];
        *gain_grad += share[shape.inputs];
    }
}

}  // namespace
}  // namespace litevae

// ---------------------------------------------------------------------------------------------------- C interface

// Weights are dense [O, I, K] or, channels_last, [O, K, I]. scales, scales_grad and gain_grad are float64 if the weight
// is, else float32. After the struct come the addresses of the results.
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
