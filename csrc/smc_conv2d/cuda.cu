// How does a GPU without Triton make the self-modulated weight of Eq. 3, and its gradients?
//
// One block an output row. A row is [I, K] in memory (contiguous) or [K, I] (channels_last), consecutive elements in
// either case: a thread reads and writes kVector of them at a time, up to 16 bytes. A tile is what the threads of a
// block hold in registers at once, kHeld vectors each; a row of one tile is read once. Every sum has one order: no
// atomics. blockDim.x is a multiple of 32, at most kThreads.
#include "../cuda_packs.h"
#include "../scalar_types.h"
#include "tile.h"

namespace litevae {

constexpr int kWarp = 32;

template <typename Weight>
using Arithmetic = decltype(widen(Weight()));

// How a row lies in memory: [I, K] or, channels_last, [K, I]. With K = 1 both are the same.
template <bool kChannelsLast>
struct RowShape {
    int32_t inputs, taps;
    LITEVAE_INLINE int32_t size() const { return inputs * taps; }
    LITEVAE_INLINE int32_t first_of(int32_t channel) const { return kChannelsLast ? channel : channel * taps; }
    LITEVAE_INLINE int32_t step() const { return kChannelsLast ? inputs : 1; }

    // The scales of the kVector elements from j on; in channels_last their channels are a vector too.
    template <typename T, int kVector, typename Scale>
    LITEVAE_INLINE void spread(const Scale* scales, int32_t j, T (&result)[kVector]) const {
        if constexpr (kChannelsLast) {
            const auto pack = load_pack<kVector>(scales + uint32_t(j) % uint32_t(inputs));
            for (int e = 0; e < kVector; e++) result[e] = load<T>(pack.values[e]);
        } else {
            uint32_t channel = uint32_t(j) / uint32_t(taps);
            int32_t place = j - int32_t(channel) * taps;
            for (int e = 0; e < kVector; e++) {
                result[e] = load<T>(scales[channel]);
                const bool next = ++place == taps;
                channel += next;
                place = next ? 0 : place;
            }
        }
    }
};

// The sums over the block of kCount values a thread, at every thread. shared: kCount * (blockDim.x + kWarp) values.
template <int kCount, typename T>
__device__ void sum_over_block(T (&values)[kCount], T* shared) {
    const int threads = blockDim.x, thread = threadIdx.x;
    T* by_lane = shared + kCount * threads;
    for (int c = 0; c < kCount; c++) shared[c * threads + thread] = values[c];
    __syncthreads();
    for (int slot = thread; slot < kCount * kWarp; slot += threads) {
        const int c = slot / kWarp;
        T sum = 0;
        for (int other = slot % kWarp; other < threads; other += kWarp) sum += shared[c * threads + other];
        by_lane[slot] = sum;
    }
    __syncthreads();
    for (int c = 0; c < kCount; c++) {
        values[c] = 0;
        for (int lane = 0; lane < kWarp; lane++) values[c] += by_lane[c * kWarp + lane];
    }
}

// w' = gain r u with u = s w and r = (sum of u^2 + eps)^(-1/2) over a row. Gradient: smc_weight_bwd_kernel.
template <typename Weight, typename Scale, typename Result, bool kChannelsLast, int kVector, int kHeld, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    smc_weight_fwd_kernel(
        const Weight* __restrict__ weight,  // w, dense [O, I, K] or, with kChannelsLast, [O, K, I]
        const Scale* __restrict__ scales,   // s, [I]
        const Scale* __restrict__ gain,     // one element, or null for 1
        Result* __restrict__ result,        // w', as weight
        int32_t inputs, int32_t taps,       // I, K
        Arithmetic<Weight> eps) {
    using T = Arithmetic<Weight>;
    __shared__ T shared[kThreads + kWarp];
    const RowShape<kChannelsLast> shape{inputs, taps};
    const int32_t size = shape.size(), stride = int32_t(blockDim.x) * kVector, tile = stride * kHeld;
    const int32_t mine = int32_t(threadIdx.x) * kVector;
    weight += blockIdx.x * int64_t(size);
    result += blockIdx.x * int64_t(size);
    T modulated[kHeld][kVector];
    const auto load_tile = [&](int32_t first) {
        Pack<Weight, kVector> w[kHeld];
#pragma unroll
        for (int h = 0; h < kHeld; h++) {
            const int32_t j = first + h * stride + mine;
            if (j < size) w[h] = load_pack<kVector>(weight + j);
        }
#pragma unroll
        for (int h = 0; h < kHeld; h++) {
            const int32_t j = first + h * stride + mine;
            T s[kVector] = {};
            if (j < size) shape.spread(scales, j, s);
            for (int e = 0; e < kVector; e++) modulated[h][e] = j < size ? s[e] * load<T>(w[h].values[e]) : T(0);
        }
    };
    T sum[1] = {0};
    for (int32_t first = (size - 1) / tile * tile; first >= 0; first -= tile) {
        load_tile(first);
#pragma unroll
        for (int h = 0; h < kHeld; h++) {
            for (int e = 0; e < kVector; e++) sum[0] += modulated[h][e] * modulated[h][e];
        }
    }
    sum_over_block(sum, shared);
    const T factor = (gain ? load<T>(*gain) : T(1)) * smc_inverse_norm(sum[0], eps);
    for (int32_t first = 0; first < size; first += tile) {
        if (first > 0) load_tile(first);
#pragma unroll
        for (int h = 0; h < kHeld; h++) {
            const int32_t j = first + h * stride + mine;
            Pack<Result, kVector> pack;
            for (int e = 0; e < kVector; e++) store(factor * modulated[h][e], pack.values[e]);
            if (j < size) store_pack(pack, result + j);
        }
    }
}

// With v = r u: dgain = sum(grad v), du = gain r (grad - v sum(grad v)), dw = s du, ds[i] = sum over k of (w du).
template <typename Weight, typename Scale, typename Grad, bool kChannelsLast, int kVector, int kHeld, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    smc_weight_bwd_kernel(
        const Grad* __restrict__ grad,  // of w', as weight
        const Weight* __restrict__ weight, const Scale* __restrict__ scales, const Scale* __restrict__ gain,
        Weight* __restrict__ weight_grad,         // result: dw, as weight
        Arithmetic<Weight>* __restrict__ shares,  // result: [O, I + 1], each row's share of ds and, last, of dgain
        int32_t inputs, int32_t taps, Arithmetic<Weight> eps) {
    using T = Arithmetic<Weight>;
    __shared__ T shared[2 * (kThreads + kWarp)];
    __shared__ Pack<T, kVector> products[kThreads * kHeld];  // w du of a tile
    const RowShape<kChannelsLast> shape{inputs, taps};
    const int32_t size = shape.size(), stride = int32_t(blockDim.x) * kVector, tile = stride * kHeld;
    const int32_t mine = int32_t(threadIdx.x) * kVector;
    grad += blockIdx.x * int64_t(size);
    weight += blockIdx.x * int64_t(size);
    weight_grad += blockIdx.x * int64_t(size);
    shares += blockIdx.x * int64_t(inputs + 1);
    Pack<Grad, kVector> g[kHeld];
    Pack<Weight, kVector> w[kHeld];
    const auto load_tile = [&](int32_t first) {
#pragma unroll
        for (int h = 0; h < kHeld; h++) {
            const int32_t j = first + h * stride + mine;
            if (j < size) {
                g[h] = load_pack<kVector>(grad + j);
                w[h] = load_pack<kVector>(weight + j);
            }
        }
    };
    T sums[2] = {0, 0};  // of u^2 and of grad u
    for (int32_t first = (size - 1) / tile * tile; first >= 0; first -= tile) {
        load_tile(first);
#pragma unroll
        for (int h = 0; h < kHeld; h++) {
            const int32_t j = first + h * stride + mine;
            if (j >= size) continue;
            T s[kVector];
            shape.spread(scales, j, s);
            for (int e = 0; e < kVector; e++) {
                const T u = s[e] * load<T>(w[h].values[e]);
                sums[0] += u * u;
                sums[1] += u * load<T>(g[h].values[e]);
            }
        }
    }
    sum_over_block(sums, shared);
    const T r = smc_inverse_norm(sums[0], eps), projection = r * sums[1], factor = gain ? load<T>(*gain) : T(1);
    if (threadIdx.x == 0) shares[inputs] = projection;
    for (int32_t first = 0; first < size; first += tile) {
        if (first > 0) load_tile(first);
#pragma unroll
        for (int h = 0; h < kHeld; h++) {
            const int32_t j = first + h * stride + mine;
            if (j >= size) continue;
            Pack<Weight, kVector> dw;
            Pack<T, kVector> product;
            T s[kVector];
            shape.spread(scales, j, s);
            for (int e = 0; e < kVector; e++) {
                const T value = load<T>(w[h].values[e]);
                const T du = smc_modulated_gradient(load<T>(g[h].values[e]), s[e] * value, r, factor, projection);
                store(s[e] * du, dw.values[e]);
                product.values[e] = value * du;
            }
            store_pack(dw, weight_grad + j);
            products[(j - first) / kVector] = product;
        }
        __syncthreads();
        const int32_t last = first + tile < size ? first + tile : size;
        const T* by_element = products[0].values;
        for (int32_t i = threadIdx.x; i < inputs; i += blockDim.x) {
            const int32_t start = shape.first_of(i), step = shape.step();
            if (start >= last) continue;
            const bool begun = start < first;  // in the tile before, by this same thread
            T share = begun ? shares[i] : T(0);
            for (int32_t k = begun ? (first - start + step - 1) / step : 0; k < taps; k++) {
                const int32_t j = start + k * step;
                if (j >= last) break;
                share += by_element[j - first];
            }
            shares[i] = share;
        }
        __syncthreads();
    }
}

// ds[i] = sum over o of shares[o, i], dgain = sum over o of shares[o, I]. A block has a warp's width of columns.
template <typename T, typename Scale, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    smc_shares_kernel(
        const T* __restrict__ shares,      // [O, I + 1]
        Scale* __restrict__ scales_grad,   // result: ds, [I]
        Scale* __restrict__ gain_grad,     // result: dgain, one element
        int32_t outputs, int32_t inputs,   // O, I
        int32_t has_gain) {                // dgain is 0 without
    constexpr int kGroups = kThreads / kWarp;
    __shared__ T by_group[kGroups][kWarp];
    const int32_t lane = threadIdx.x % kWarp, group = threadIdx.x / kWarp;
    const int64_t column = blockIdx.x * int64_t(kWarp) + lane;
    T sum = 0;
    if (column <= inputs) {
#pragma unroll 8
        for (int32_t o = group; o < outputs; o += kGroups) sum += shares[o * int64_t(inputs + 1) + column];
    }
    by_group[group][lane] = sum;
    __syncthreads();
    if (group > 0 || column > inputs) return;
    sum = 0;
    for (int other = 0; other < kGroups; other++) sum += by_group[other][lane];
    if (column < inputs) {
        store(sum, scales_grad[column]);
    } else {
        store(has_gain ? sum : T(0), *gain_grad);
    }
}

}  // namespace litevae
