// How does a GPU without Triton compute GroupNorm then SiLU, and its gradients?
//
//     moments      mean and sum of squares about it, of every channel and chunk of pixels        reads x and skip
//     fwd          joins those of its channels' groups to mean and rstd; the result              reads x and skip
//
//     sums         sum dz and rstd sum dz (x - mean), of every channel and chunk of pixels       reads grad, x and skip
//     bwd          joins those of its channels' groups; the gradients of x and skip              reads grad, x and skip
//     parameters   the gradients of weight and bias, from the same sums                          a warp a channel
//
// Formulas: tile.h. Which thread reads what: cuda_walk.h. Every partial result has one writer and is added up in one
// order: no atomics, and the same bits every time. Chunks follow from a sample's sizes: so do its results' bits.
//
// What all kernels take:
//     x, skip                  [B, x_channels, P] and [B, skip_channels, P], or with the pixels first; null without skip
//     weight, bias, ..._dtype  [C] of any floating dtype, as Dtype names it; null for 1 and 0
//     batch ... splits         struct Sizes, field by field; `pixels` P, cut into `splits` chunks
#include "cuda_groups.h"

namespace litevae {

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

// result [B, C, P]. mean and rstd [B, groups]: null where they are not wanted. partials: those of `moments`.
template <typename X, int kPack, bool kChannelsLast>
__global__ void __launch_bounds__(kWalkThreads, kWalkBlocks)
    group_norm_silu_fwd_kernel(const X* x, const X* skip, X* result, const Pair<Arithmetic<X>>* partials,
                               Arithmetic<X>* mean, Arithmetic<X>* rstd, const void* weight, int32_t weight_dtype,
                               const void* bias, int32_t bias_dtype, double eps, int64_t batch, int64_t x_channels,
                               int64_t skip_channels, int64_t groups, int64_t pixels, int32_t chunk, int32_t splits) {
    using T = Arithmetic<X>;
    using Steps = Walk<X, kPack, kChannelsLast>;
    __shared__ Moments<T> shared[kWalkThreads];
    __shared__ Pair<T> statistics[Steps::kBlockChannels];
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const Steps walk(sizes, Backwards());
    if (!walk.exists) return;
    const int64_t size = sizes.group_size(), first_group = walk.block.first / size;
    partials += walk.sample * sizes.channels() * splits;
    join_groups(
        sizes, walk.block, shared,
        [&](uint32_t group, uint32_t i) {
            const Pair<T> part = partials[group * size * splits + i];
            return Moments<T>{T(sizes.pixels_in(i % uint32_t(splits))), part.values[0], part.values[1]};
        },
        [&](uint32_t group, Moments<T> all) {
            const Pair<T> of_group = {{all.mean, inverse_root(all.m2 / all.count + T(eps))}};
            statistics[group - first_group] = of_group;
            if (mean == nullptr || !walk.leads(sizes, group * size)) return;
            mean[walk.sample * groups + group] = of_group.values[0];
            rstd[walk.sample * groups + group] = of_group.values[1];
        });
    if (walk.count == 0) return;
    const Affine<T, Steps::kChannels> affine(sizes, walk.channel, weight, weight_dtype, bias, bias_dtype,
                                             [&](uint32_t group) { return statistics[group - first_group]; });
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
        const KeptStatistics<T> statistics(sizes, walk.sample, mean, rstd);
        const Affine<T, kChannels> affine(sizes, walk.channel, weight, weight_dtype, bias, bias_dtype, statistics);
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
        for_each_group<kChannels>(sizes, walk.channel, [&](int j, uint32_t group) {
            values[j].values[1] *= statistics.rstd[group];
        });
    }
    combine_slots(values, shared, walk.slot, walk.slots, walk.between);
    if (walk.slot > 0 || walk.count == 0) return;
#pragma unroll
    for (int j = 0; j < kChannels; j++) {
        sums[(walk.sample * sizes.channels() + walk.channel + j) * splits + walk.split] = values[j];
    }
}

// x_grad and skip_grad lie as x and skip do. sums: those of the kernel above.
template <typename X, int kPack, bool kChannelsLast>
__global__ void __launch_bounds__(kWalkThreads, kWalkBlocks)
    group_norm_silu_bwd_kernel(const X* grad, const X* x, const X* skip, X* x_grad, X* skip_grad,
                               const Pair<Arithmetic<X>>* sums, const Arithmetic<X>* mean, const Arithmetic<X>* rstd,
                               const void* weight, int32_t weight_dtype, const void* bias, int32_t bias_dtype,
                               int64_t batch, int64_t x_channels, int64_t skip_channels, int64_t groups, int64_t pixels,
                               int32_t chunk, int32_t splits) {
    using T = Arithmetic<X>;
    using Steps = Walk<X, kPack, kChannelsLast>;
    constexpr int kChannels = Steps::kChannels;
    __shared__ Pair<T> shared[kWalkThreads];
    __shared__ Pair<T> coefficients[Steps::kBlockChannels];  // offset and slope of a group
    const Sizes sizes{batch, x_channels, skip_channels, groups, pixels, chunk, splits};
    const Steps walk(sizes, Backwards());
    if (!walk.exists) return;
    const KeptStatistics<T> statistics(sizes, walk.sample, mean, rstd);
    const int64_t size = sizes.group_size(), first_group = walk.block.first / size;
    sums += walk.sample * sizes.channels() * splits;
    join_groups(
        sizes, walk.block, shared,
        [&](uint32_t group, uint32_t i) {
            T scale;
            load_parameters<1>(weight, weight_dtype, group * size + i / uint32_t(splits), T(1), &scale);
            const Pair<T> part = sums[group * size * splits + i];
            return Pair<T>{{scale * part.values[0], scale * part.values[1]}};
        },
        [&](uint32_t group, Pair<T> all) {
            const T r = statistics.rstd[group], share = r / T(size * pixels);
            coefficients[group - first_group] = {{share * all.values[0], r * share * all.values[1]}};
        });
    if (walk.count == 0) return;
    const Affine<T, kChannels> affine(sizes, walk.channel, weight, weight_dtype, bias, bias_dtype, statistics);
    T offset[kChannels], slope[kChannels];
    for_each_group<kChannels>(sizes, walk.channel, [&](int j, uint32_t group) {
        const Pair<T> of_group = coefficients[group - first_group];
        offset[j] = of_group.values[0], slope[j] = of_group.values[1];
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

}  // namespace litevae
