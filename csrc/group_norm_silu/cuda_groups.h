// What do the GPU kernels know of channels and groups? Weights, biases, and partial results joined to those of groups.
#pragma once

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

// Calls body(j, group) for channels first_channel + j; groups are counted through the sample.
template <int kCount, typename Body>
LITEVAE_DEVICE void for_each_group(const Sizes& sizes, int64_t first_channel, const Body& body) {
    const uint32_t size = uint32_t(sizes.group_size());
    uint32_t group = uint32_t(first_channel) / size, place = uint32_t(first_channel) % size;
#pragma unroll
    for (int j = 0; j < kCount; j++) {
        body(j, group);
        const bool next = ++place == size;
        group += next, place = next ? 0 : place;
    }
}

// Joins the partial results of every group that the block's channels belong to, all threads of the block together.
//     part(group, i)       partial result i of the group's group_size * splits, which come channel by channel
//     finish(group, all)   takes what they are together, in one thread; seen by all threads afterwards
// Groups are counted through the sample. Value: combine adds two of them, zeros are none. shared: kWalkThreads of them.
template <typename Value, typename Part, typename Finish>
LITEVAE_DEVICE void join_groups(const Sizes& sizes, const Channels& block, Value* shared, const Part& part,
                                const Finish& finish) {
    const uint32_t size = uint32_t(sizes.group_size()), parts = size * uint32_t(sizes.splits);
    const uint32_t first = uint32_t(block.first) / size, end = uint32_t(block.end - 1) / size + 1;
    const uint32_t slots = end - first < kWalkThreads ? kWalkThreads / (end - first) : 1;
    const uint32_t together = kWalkThreads / slots, place = threadIdx.x / slots;
    const uint32_t slot = place < together ? threadIdx.x % slots : slots;  // the last threads may have nothing to do
#pragma unroll 1
    for (uint32_t start = first; start < end; start += together) {
        const uint32_t group = start + place;
        const bool exists = slot < slots && group < end;
        Value values[1] = {};
        for (uint32_t i = slot; exists && i < parts; i += slots) values[0] = combine(values[0], part(group, i));
        combine_slots(values, shared, int(slot), int(slots), 1);
        if (exists && slot == 0) finish(group, values[0]);
        __syncthreads();
    }
}

// What the channels a thread visits are normalised with. statistics(group): mean and rstd.
template <typename T, int kChannels>
struct Affine {
    T mean[kChannels], scale[kChannels], bias[kChannels];

    template <typename Statistics>
    LITEVAE_DEVICE Affine(const Sizes& sizes, int64_t first_channel, const void* weight, int32_t weight_dtype,
                          const void* biases, int32_t bias_dtype, const Statistics& statistics) {
        load_parameters<kChannels>(weight, weight_dtype, first_channel, T(1), scale);
        load_parameters<kChannels>(biases, bias_dtype, first_channel, T(0), bias);
        for_each_group<kChannels>(sizes, first_channel, [&](int j, uint32_t group) {
            const Pair<T> of_group = statistics(group);
            mean[j] = of_group.values[0], scale[j] *= of_group.values[1];
        });
    }
};

// mean and rstd [B, G] of a sample's groups, as Affine takes them.
template <typename T>
struct KeptStatistics {
    const T *mean, *rstd;

    LITEVAE_DEVICE KeptStatistics(const Sizes& sizes, int64_t sample, const T* means, const T* rstds)
        : mean(means + sample * sizes.groups), rstd(rstds + sample * sizes.groups) {}
    LITEVAE_DEVICE Pair<T> operator()(uint32_t group) const { return {{mean[group], rstd[group]}}; }
};

}  // namespace litevae
