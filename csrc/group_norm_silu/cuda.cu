// How does a GPU without Triton compute GroupNorm then SiLU, and its gradients? Each way in three launches.
//
//     moments      mean and sum of squares about it, of every channel and chunk of pixels        reads x and skip
//     statistics   a group's mean and rstd from those                                            a block a group
//     fwd          the result                                                                    reads x and skip
//
//     sums         sum dz and rstd sum dz (x - mean), of every channel and chunk of pixels       reads grad, x and skip
//     coefficients a group's offset and slope from those                                         a block a group
//     parameters   the gradients of weight and bias, from the same sums                          a warp a channel
//     bwd          the gradients of x and skip                                                   reads grad, x and skip
//
// Every partial result has one writer and is added up in one order: no atomics, and the same bits every time.
#include "cuda_walk.h"
#include "tile.h"

namespace litevae {

template <typename T>
using Pair = Pack<T, 2>;

// kCount neighbours in a weight or bias of any floating dtype, as Dtype names it; null stands for the value `absent`.
template <int kCount, typename T, typename Stored>
LITEVAE_DEVICE void load_values(const void* data, int64_t first, T* values) {
#pragma unroll
    for (int j = 0; j < kCount; j++) values[j] = load<T>(static_cast<const Stored*>(data)[first + j]);
}

template <int kCount, typename T>
LITEVAE_DEVICE void load_parameters(const void* data, int32_t dtype, int64_t first, T absent, T* values) {
    if (data == nullptr) {
#pragma unroll
        for (int j = 0; j < kCount; j++) values[j] = absent;
        return;
    }
    switch (Dtype(dtype)) {
        case Dtype::float64: return load_values<kCount, T, double>(data, first, values);
        case Dtype::float16: return load_values<kCount, T, float16>(data, first, values);
        case Dtype::bfloat16: return load_values<kCount, T, bfloat16>(data, first, values);
        default: return load_values<kCount, T, float>(data, first, values);
    }
}

template <typename T>
LITEVAE_DEVICE void store_parameter(T value, void* data, int32_t dtype, int64_t index) {
    switch (Dtype(dtype)) {
        case Dtype::float64: return store(value, static_cast<double*>(data)[index]);
        case Dtype::float16: return store(value, static_cast<float16*>(data)[index]);
        case Dtype::bfloat16: return store(value, static_cast<bfloat16*>(data)[index]);
        default: return store(value, static_cast<float*>(data)[index]);
    }
}

LITEVAE_DEVICE float inverse_root(float x) { return 1.0f / sqrtf(x); }
LITEVAE_DEVICE double inverse_root(double x) { return 1.0 / sqrt(x); }

template <typename T>
LITEVAE_DEVICE Pair<T> combine(Pair<T> a, Pair<T> b) {
    return {{a.values[0] + b.values[0], a.values[1] + b.values[1]}};
}

// Combines the values of threads that are `between` apart, slot 0 to slots - 1, pairwise; the result is slot 0's.
// shared: kCount * kWalkThreads of them.
template <typename Value, int kCount>
LITEVAE_DEVICE void combine_slots(Value (&values)[kCount], Value* shared, int slot, int slots, int between) {
    for (int active = slots; active > 1; active = (active + 1) / 2) {
        const int half = (active + 1) / 2;
        if (slot >= half && slot < active) {
#pragma unroll
            for (int j = 0; j < kCount; j++) shared[j * kWalkThreads + threadIdx.x] = values[j];
        }
        __syncthreads();
        if (slot + half < active) {
#pragma unroll
            for (int j = 0; j < kCount; j++) {
                values[j] = combine(values[j], shared[j * kWalkThreads + threadIdx.x + half * between]);
            }
        }
    }
}

// Calls body(j, group) for channels first_channel + j; groups are counted through the batch.
template <int kCount, typename Body>
LITEVAE_DEVICE void for_each_group(const Sizes& sizes, int64_t sample, int64_t first_channel, const Body& body) {
    const uint32_t size = uint32_t(sizes.group_size());
    uint32_t in_sample = uint32_t(first_channel) / size, place = uint32_t(first_channel) % size;
#pragma unroll
    for (int j = 0; j < kCount; j++) {
        body(j, sample * sizes.groups + in_sample);
        const bool next = ++place == size;
        in_sample += next, place = next ? 0 : place;
    }
}

// What the channels a thread visits are normalised with.
template <typename T, int kChannels>
struct Affine {
    T mean[kChannels], scale[kChannels], bias[kChannels];

    LITEVAE_DEVICE Affine(const Sizes& sizes, int64_t sample, int64_t first_channel, const T* means, const T* rstds,
                          const void* weight, int32_t weight_dtype, const void* biases, int32_t bias_dtype) {
        load_parameters<kChannels>(weight, weight_dtype, first_channel, T(1), scale);
        load_parameters<kChannels>(biases, bias_dtype, first_channel, T(0), bias);
        for_each_group<kChannels>(sizes, sample, first_channel, [&](int j, int64_t group) {
            mean[j] = means[group], scale[j] *= rstds[group];
        });
    }
};

// -------------------------------------------------------------------------------------------------------- forward

// partials [B, C, splits]: mean and sum of squares about it. The shift of a thread is the first value it meets.
template <typename X, int kPack, bool kChannelsLast>
__global__ void __launch_bounds__(kWalkThreads, kWalkBlocks)
    group_norm_silu_moments_kernel(const X* x, const X* skip, Pair<Arithmetic<X>>* partials, int64_t batch,
                                   int64_t x_channels, int64_t skip_channels, int64_t groups, int64_t pixels,
                                   int32_t chunk, int32_t splits) {
    using T = Arithmetic<X>;
    using Steps = Walk<X, kPack, kChannelsLast>;
    constexpr int kChannels = Steps::kChannels;
    __shared__ Moments<T> shared[kChannels * kWalkThreads];
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const Steps walk(sizes, Forwards());
    const X* tensor = walk.in_skip ? skip : x;
    T shift[kChannels] = {}, sum[kChannels] = {}, squares[kChannels] = {};
    if (walk.count > 0) {
#pragma unroll
        for (int j = 0; j < kChannels; j++) shift[j] = load<T>(tensor[walk.from + j]);
    }
    walk.visit(tensor, [&](const Pack<X, kPack>& pack, int) {
#pragma unroll
        for (int j = 0; j < kPack; j++) {
            const int c = walk.channel_of(j);
            const T centred = load<T>(pack.values[j]) - shift[c];
            sum[c] += centred, squares[c] += centred * centred;
        }
    });
    Moments<T> moments[kChannels];
#pragma unroll
    for (int j = 0; j < kChannels; j++) {
        const T elements = T(kChannelsLast ? walk.count : walk.count * kPack);
        moments[j] = Moments<T>{0, 0, 0};
        if (walk.count > 0) moments[j] = moments_around(shift[j], elements, sum[j], squares[j]);
    }
    combine_slots(moments, shared, walk.slot, walk.slots, walk.between);
    if (walk.slot > 0 || walk.count == 0) return;
#pragma unroll
    for (int j = 0; j < kChannels; j++) {
        const int64_t at = (walk.sample * sizes.channels() + walk.channel + j) * splits + walk.split;
        partials[at] = {{moments[j].mean, moments[j].m2}};
    }
}

// A block a group. blockDim.x: at most kWalkThreads.
template <typename T>
__global__ void __launch_bounds__(kWalkThreads)
    group_norm_silu_statistics_kernel(const Pair<T>* partials, T* mean, T* rstd, int64_t batch, int64_t x_channels,
                                      int64_t skip_channels, int64_t groups, int64_t pixels, int32_t chunk,
                                      int32_t splits, double eps) {
    __shared__ Moments<T> shared[kWalkThreads];
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const int64_t count = sizes.group_size() * splits;
    partials += blockIdx.x * count;
    Moments<T> moments[1] = {{0, 0, 0}};
    for (int64_t index = threadIdx.x; index < count; index += blockDim.x) {
        const T elements = T(sizes.pixels_in(uint32_t(index) % uint32_t(splits)));
        const Pair<T> part = partials[index];
        moments[0] = combine(moments[0], Moments<T>{elements, part.values[0], part.values[1]});
    }
    combine_slots(moments, shared, threadIdx.x, blockDim.x, 1);
    if (threadIdx.x > 0) return;
    mean[blockIdx.x] = moments[0].mean;
    rstd[blockIdx.x] = inverse_root(moments[0].m2 / moments[0].count + T(eps));
}

// result [B, C, H, W]. weight and bias: null for 1 and 0.
template <typename X, int kPack, bool kChannelsLast>
__global__ void __launch_bounds__(kWalkThreads, kWalkBlocks)
    group_norm_silu_fwd_kernel(const X* x, const X* skip, X* result, const Arithmetic<X>* mean,
                               const Arithmetic<X>* rstd, const void* weight, int32_t weight_dtype, const void* bias,
                               int32_t bias_dtype, int64_t batch, int64_t x_channels, int64_t skip_channels,
                               int64_t groups, int64_t pixels, int32_t chunk, int32_t splits) {
    using T = Arithmetic<X>;
    using Steps = Walk<X, kPack, kChannelsLast>;
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const Steps walk(sizes, Backwards());
    if (walk.count == 0) return;
    const Affine<T, Steps::kChannels> affine(sizes, walk.sample, walk.channel, mean, rstd, weight, weight_dtype, bias,
                                             bias_dtype);
    walk.visit(walk.in_skip ? skip : x, [&](Pack<X, kPack>& pack, int step) {
#pragma unroll
        for (int j = 0; j < kPack; j++) {
            const int c = walk.channel_of(j);
            const T z = normalise(load<T>(pack.values[j]), affine.mean[c], affine.scale[c], affine.bias[c]);
            store(silu(z), pack.values[j]);
        }
        store_pack(pack, result + walk.whole + step * walk.whole_step);
    });
}

// ------------------------------------------------------------------------------------------------------- backward

// sums [B, C, splits]: sum dz and rstd sum dz (x - mean). grad lies as the result does.
template <typename X, int kPack, bool kChannelsLast>
__global__ void __launch_bounds__(kWalkThreads, kWalkBlocks)
    group_norm_silu_sums_kernel(const X* grad, const X* x, const X* skip, Pair<Arithmetic<X>>* sums,
                                const Arithmetic<X>* mean, const Arithmetic<X>* rstd, const void* weight,
                                int32_t weight_dtype, const void* bias, int32_t bias_dtype, int64_t batch,
                                int64_t x_channels, int64_t skip_channels, int64_t groups, int64_t pixels,
                                int32_t chunk, int32_t splits) {
    using T = Arithmetic<X>;
    using Steps = Walk<X, kPack, kChannelsLast>;
    constexpr int kChannels = Steps::kChannels;
    __shared__ Pair<T> shared[kChannels * kWalkThreads];
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const Steps walk(sizes, Forwards());
    Pair<T> values[kChannels] = {};
    if (walk.count > 0) {
        const Affine<T, kChannels> affine(sizes, walk.sample, walk.channel, mean, rstd, weight, weight_dtype, bias,
                                          bias_dtype);
        walk.visit(walk.in_skip ? skip : x, grad, [&](const Pack<X, kPack>& pack, const Pack<X, kPack>& dy, int) {
#pragma unroll
            for (int j = 0; j < kPack; j++) {
                const int c = walk.channel_of(j);
                const T value = load<T>(pack.values[j]);
                const T z = normalise(value, affine.mean[c], affine.scale[c], affine.bias[c]);
                const T dz = load<T>(dy.values[j]) * silu_derivative(z);
                values[c].values[0] += dz;
                values[c].values[1] += dz * (value - affine.mean[c]);
            }
        });
        for_each_group<kChannels>(sizes, walk.sample, walk.channel, [&](int j, int64_t group) {
            values[j].values[1] *= rstd[group];
        });
    }
    combine_slots(values, shared, walk.slot, walk.slots, walk.between);
    if (walk.slot > 0 || walk.count == 0) return;
#pragma unroll
    for (int j = 0; j < kChannels; j++) {
        sums[(walk.sample * sizes.channels() + walk.channel + j) * splits + walk.split] = values[j];
    }
}

// coefficients [B, groups]: offset and slope. A block a group.
template <typename T>
__global__ void __launch_bounds__(kWalkThreads)
    group_norm_silu_coefficients_kernel(const Pair<T>* sums, Pair<T>* coefficients, const T* rstd, const void* weight,
                                        int32_t weight_dtype, int64_t batch, int64_t x_channels, int64_t skip_channels,
                                        int64_t groups, int64_t pixels, int32_t chunk, int32_t splits) {
    __shared__ Pair<T> shared[kWalkThreads];
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const int64_t count = sizes.group_size() * splits;
    const int64_t first_channel = blockIdx.x % uint32_t(groups) * sizes.group_size();
    sums += blockIdx.x * count;
    Pair<T> values[1] = {};
    for (int64_t index = threadIdx.x; index < count; index += blockDim.x) {
        T scale;
        load_parameters<1>(weight, weight_dtype, first_channel + uint32_t(index) / uint32_t(splits), T(1), &scale);
        values[0] = combine(values[0], {{scale * sums[index].values[0], scale * sums[index].values[1]}});
    }
    combine_slots(values, shared, threadIdx.x, blockDim.x, 1);
    if (threadIdx.x > 0) return;
    const T r = rstd[blockIdx.x], share = r / T(sizes.group_size() * pixels);
    coefficients[blockIdx.x] = {{share * values[0].values[0], r * share * values[0].values[1]}};
}

// The gradients of weight and bias [C], in their dtypes; null for one that is not wanted. A warp a channel.
template <typename T>
__global__ void __launch_bounds__(kWalkThreads)
    group_norm_silu_parameters_kernel(const Pair<T>* sums, void* weight_grad, int32_t weight_dtype, void* bias_grad,
                                      int32_t bias_dtype, int64_t batch, int64_t channels, int32_t splits) {
    __shared__ Pair<T> shared[kWalkThreads];
    const int lane = threadIdx.x % kWarp;
    const int64_t channel = int64_t(blockIdx.x) * (kWalkThreads / kWarp) + threadIdx.x / kWarp;
    Pair<T> values[1] = {};
    if (channel < channels) {
        for (int64_t index = lane; index < batch * splits; index += kWarp) {
            const int64_t sample = uint32_t(index) / uint32_t(splits), split = uint32_t(index) % uint32_t(splits);
            values[0] = combine(values[0], sums[(sample * channels + channel) * splits + split]);
        }
    }
    combine_slots(values, shared, lane, kWarp, 1);
    if (lane > 0 || channel >= channels) return;
    if (weight_grad != nullptr) store_parameter(values[0].values[1], weight_grad, weight_dtype, channel);
    if (bias_grad != nullptr) store_parameter(values[0].values[0], bias_grad, bias_dtype, channel);
}

// x_grad and skip_grad lie as x and skip do.
template <typename X, int kPack, bool kChannelsLast>
__global__ void __launch_bounds__(kWalkThreads, kWalkBlocks)
    group_norm_silu_bwd_kernel(const X* grad, const X* x, const X* skip, X* x_grad, X* skip_grad,
                               const Pair<Arithmetic<X>>* coefficients, const Arithmetic<X>* mean,
                               const Arithmetic<X>* rstd, const void* weight, int32_t weight_dtype, const void* bias,
                               int32_t bias_dtype, int64_t batch, int64_t x_channels, int64_t skip_channels,
                               int64_t groups, int64_t pixels, int32_t chunk, int32_t splits) {
    using T = Arithmetic<X>;
    using Steps = Walk<X, kPack, kChannelsLast>;
    constexpr int kChannels = Steps::kChannels;
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const Steps walk(sizes, Backwards());
    if (walk.count == 0) return;
    const Affine<T, kChannels> affine(sizes, walk.sample, walk.channel, mean, rstd, weight, weight_dtype, bias,
                                      bias_dtype);
    T offset[kChannels], slope[kChannels];
    for_each_group<kChannels>(sizes, walk.sample, walk.channel, [&](int j, int64_t group) {
        offset[j] = coefficients[group].values[0], slope[j] = coefficients[group].values[1];
    });
    X* to = (walk.in_skip ? skip_grad : x_grad) + walk.from;
    walk.visit(walk.in_skip ? skip : x, grad, [&](Pack<X, kPack>& pack, const Pack<X, kPack>& dy, int step) {
#pragma unroll
        for (int j = 0; j < kPack; j++) {
            const int c = walk.channel_of(j);
            const T value = load<T>(pack.values[j]);
            const T z = normalise(value, affine.mean[c], affine.scale[c], affine.bias[c]);
            const T dz = load<T>(dy.values[j]) * silu_derivative(z);
            store(input_gradient(dz, value - affine.mean[c], affine.scale[c], offset[c], slope[c]), pack.values[j]);
        }
        store_pack(pack, to + step * walk.from_step);
    });
}

}  // namespace litevae
