// Which elements of x and skip does a GPU thread visit? The same for statistics and for results, in both layouts.
//
// A thread goes from pack to pack of neighbouring elements, up to 16 bytes, of one sample.
//     NCHW            a pack is part of a channel; a warp goes through `chunk` pixels of one channel
//     channels_last   a pack is kPack channels of a pixel; a block goes through `chunk` pixels, its threads being
//                     `slots` pixels by as many packs as the tensor has channels for (or as fit)
// Threads that visit the same channels sit side by side as slots: what they have gathered is added up pairwise.
#pragma once

#include "../cuda_packs.h"
#include "../scalar_types.h"

namespace litevae {

constexpr int kWalkThreads = 256, kWarp = 32;
constexpr int kWalkBlocks = 2;  // a multiprocessor has registers for: 128 a thread

template <typename X>
using Arithmetic = decltype(widen(X()));

// The tensors' sizes, and how a sample (which one, blockIdx.y and z tell) is divided among blockIdx.x: into `splits`
// chunks of `chunk` pixels, the last one perhaps smaller.
struct Sizes {
    int64_t batch, x_channels, skip_channels, groups, pixels;
    int32_t chunk, splits;

    LITEVAE_DEVICE int64_t channels() const { return x_channels + skip_channels; }
    LITEVAE_DEVICE int64_t group_size() const { return channels() / groups; }
    LITEVAE_DEVICE int pixels_in(int64_t split) const {
        const int64_t left = pixels - split * chunk;
        return int(left < chunk ? left : chunk);
    }
};

struct Channels {
    int64_t first, end;  // one after the last
};

template <bool kBackwards>
struct Order {};
using Forwards = Order<false>;
using Backwards = Order<true>;

template <typename X, int kPack, bool kChannelsLast>
struct Walk {
    static constexpr int kChannels = kChannelsLast ? kPack : 1;  // that a thread visits
    static constexpr int kTogether = 4;                          // packs that it has under way
    static constexpr int kBlockChannels = kChannelsLast ? kWalkThreads * kPack : kWalkThreads / kWarp;  // at most

    int count;                    // of packs; 0: this thread has nothing to do
    int64_t from, from_step;      // offsets of the first pack in its tensor, and from one to the next
    int64_t whole, whole_step;    // the same in a tensor of all channels, such as the result
    int64_t sample, channel;      // the first of kChannels, counted through x and skip
    uint32_t split;
    bool in_skip;
    int slot, slots, between;     // threads from one slot to the next
    bool exists;                  // the block's sample: grids are rectangular
    Channels block;               // all that the block visits, counted through x and skip
    int64_t first_unit;           // NCHW: of the block's warps, chunks of channels

    // kBackwards: from the last block to the first, to meet what another launch has just left in the cache.
    template <bool kBackwards>
    LITEVAE_DEVICE Walk(const Sizes& sizes, Order<kBackwards>) : count(0) {
        const int64_t channels = sizes.channels(), place_of_sample = blockIdx.z * int64_t(gridDim.y) + blockIdx.y;
        const uint32_t place_in_sample = kBackwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
        exists = place_of_sample < sizes.batch;
        int64_t pixel;
        sample = kBackwards ? sizes.batch - 1 - place_of_sample : place_of_sample;
        if constexpr (kChannelsLast) {
            const uint32_t x_packs = uint32_t(sizes.x_channels / kPack);
            const uint32_t skip_packs = uint32_t(sizes.skip_channels / kPack);
            const uint32_t x_blocks = sizes.splits * parts_of(x_packs);
            in_skip = place_in_sample >= x_blocks;
            const uint32_t place = place_in_sample - (in_skip ? x_blocks : 0), packs = in_skip ? skip_packs : x_packs;
            const uint32_t parts = parts_of(packs);
            between = int((packs + parts - 1) / parts), slots = kWalkThreads / between;
            slot = int(threadIdx.x) / between;
            const uint32_t first_pack = place % parts * between, pack = first_pack + threadIdx.x % between;
            split = place / parts;
            channel = int64_t(pack) * kPack, pixel = int64_t(split) * sizes.chunk + slot;
            if (exists && slot < slots && pack < packs) count = (sizes.pixels_in(split) - slot + slots - 1) / slots;
            const uint32_t end_pack = first_pack + between < packs ? first_pack + between : packs;
            const int64_t before = in_skip ? sizes.x_channels : 0;
            block = {before + int64_t(first_pack) * kPack, before + int64_t(end_pack) * kPack};
        } else {
            first_unit = int64_t(place_in_sample) * (kWalkThreads / kWarp);
            const uint32_t unit = uint32_t(first_unit) + threadIdx.x / kWarp;
            slot = threadIdx.x % kWarp, slots = kWarp, between = 1;
            split = unit % sizes.splits, channel = unit / sizes.splits;
            in_skip = channel >= sizes.x_channels;
            pixel = int64_t(split) * sizes.chunk + slot * kPack;
            if (exists && channel < channels) count = (sizes.pixels_in(split) / kPack - slot + kWarp - 1) / kWarp;
            channel -= in_skip ? sizes.x_channels : 0;
            const int64_t end = (first_unit + kWalkThreads / kWarp - 1) / sizes.splits + 1;
            block = {first_unit / sizes.splits, end < channels ? end : channels};
        }
        const int64_t tensor_channels = in_skip ? sizes.skip_channels : sizes.x_channels;
        from = place(sample, channel, pixel, tensor_channels, sizes.pixels);
        from_step = kChannelsLast ? slots * tensor_channels : kWarp * kPack;
        channel += in_skip ? sizes.x_channels : 0;
        whole = place(sample, channel, pixel, channels, sizes.pixels);
        whole_step = kChannelsLast ? slots * channels : kWarp * kPack;
    }

    // Whether this block alone visits the first chunk of the channel.
    LITEVAE_DEVICE bool leads(const Sizes& sizes, int64_t of_channel) const {
        if constexpr (kChannelsLast) return split == 0 && of_channel >= block.first && of_channel < block.end;
        const int64_t unit = of_channel * sizes.splits;
        return unit >= first_unit && unit < first_unit + kWalkThreads / kWarp;
    }

    // Calls body(pack, step) for every pack. step: how many times from_step and whole_step lead to it.
    template <typename Body>
    LITEVAE_DEVICE void visit(const X* tensor, const Body& body) const {
        tensor += from;
#pragma unroll 1
        for (int first = 0; first < count; first += kTogether) {
            Pack<X, kPack> packs[kTogether];
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                if (first + k < count) packs[k] = load_pack<kPack>(tensor + (first + k) * from_step);
            }
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                if (first + k < count) body(packs[k], first + k);
            }
        }
    }

    // The same with the packs of a tensor of all channels: body(pack, pack of the other, step).
    template <typename Body>
    LITEVAE_DEVICE void visit(const X* tensor, const X* other, const Body& body) const {
        tensor += from, other += whole;
#pragma unroll 1
        for (int first = 0; first < count; first += kTogether) {
            Pack<X, kPack> packs[kTogether], others[kTogether];
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                if (first + k >= count) break;
                packs[k] = load_pack<kPack>(tensor + (first + k) * from_step);
                others[k] = load_pack<kPack>(other + (first + k) * whole_step);
            }
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                if (first + k < count) body(packs[k], others[k], first + k);
            }
        }
    }

    // Which of the thread's channels is element j of a pack?
    static LITEVAE_DEVICE constexpr int channel_of(int j) { return kChannelsLast ? j : 0; }

    static LITEVAE_DEVICE uint32_t parts_of(uint32_t packs) { return (packs + kWalkThreads - 1) / kWalkThreads; }
    static LITEVAE_DEVICE int64_t place(int64_t sample, int64_t channel, int64_t pixel, int64_t channels,
                                        int64_t pixels) {
        return kChannelsLast ? (sample * pixels + pixel) * channels + channel
                             : (sample * channels + channel) * pixels + pixel;
    }
};

}  // namespace litevae
