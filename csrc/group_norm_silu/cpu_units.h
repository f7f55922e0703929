// How does the CPU go through the tensors of GroupNorm then SiLU, forward and backward?
//
// A unit is what has its statistics in common: a group of a sample in NCHW, where it is contiguous, and a sample in
// channels_last. It is cut into pieces that fit the cache. All pieces are summed up, then all are written; a thread
// does both for one unit after the other, so that what it read is still in its cache, and fetches the next one while it
// writes, when memory has time. Units that do not share out evenly are worked on by all threads together. The pieces
// and the order of their sums depend on the shape alone.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "../cpu_threads.h"
#include "cpu_loops.h"

// x, skip, grad and the results have one dtype and are dense, all NCHW or all channels_last. weight, bias and the
// gradients of them [C], mean and rstd [B, G] are float64 if x is, else float32. skip, weight and bias may be null.
struct GroupNormArguments {
    const void *x, *skip, *weight, *bias;
    void *mean, *rstd, *result;  // result: y, or the gradient of x
    const void* grad;            // the rest of the pointers: of the backward alone
    void *skip_grad, *weight_grad, *bias_grad;
    int64_t dtype, channels_last, sizes[5], threads;  // sizes: batch, channels of x and of skip, groups, pixels
    double eps;
};

namespace litevae {
namespace {

constexpr int64_t kPiece = 32768;  // elements

struct Piece {
    int64_t sample, channel, channels, pixel, pixels;  // the first ones, and how many
};

struct Shape {
    int64_t batch, x_channels, skip_channels, groups, pixels;
    bool channels_last;
    int64_t bands, band, splits, split;  // a unit is cut into `bands` of channels times `splits` of pixels

    Shape(const int64_t* sizes, bool channels_last)
        : batch(sizes[0]), x_channels(sizes[1]), skip_channels(sizes[2]), groups(sizes[3]), pixels(sizes[4]),
          channels_last(channels_last) {
        const int64_t pixel = channels_last ? channels() : 1;  // elements that a piece takes of one
        band = channels_last ? channels() : std::clamp<int64_t>(kPiece / pixels, 1, unit_channels());
        split = std::min(pixels, std::max<int64_t>(1, kPiece / pixel));
        bands = (unit_channels() + band - 1) / band, splits = (pixels + split - 1) / split;
    }
    int64_t channels() const { return x_channels + skip_channels; }
    int64_t group_channels() const { return channels() / groups; }
    int64_t group_size() const { return group_channels() * pixels; }
    int64_t units() const { return channels_last ? batch : batch * groups; }
    int64_t unit_groups() const { return channels_last ? groups : 1; }
    int64_t unit_channels() const { return unit_groups() * group_channels(); }
    int64_t pieces() const { return bands * splits; }
    int64_t sample_of(int64_t unit) const { return channels_last ? unit : unit / groups; }
    int64_t first_group_of(int64_t unit) const { return channels_last ? 0 : unit % groups; }
    int64_t first_channel_of(int64_t unit) const { return first_group_of(unit) * group_channels(); }

    Piece piece(int64_t unit, int64_t index) const {
        const int64_t channel = index / splits * band, pixel = index % splits * split;
        return {sample_of(unit), first_channel_of(unit) + channel, std::min(band, unit_channels() - channel), pixel,
                std::min(split, pixels - pixel)};
    }
};

// A dense tensor of some of the channels: from `first` on, `channels` of them.
template <typename Stored>
struct Tensor {
    Stored* data;
    int64_t first, channels;

    // The channels from `channel` on, at the piece's place.
    Rows<Stored> rows(const Shape& shape, const Piece& piece, int64_t channel) const {
        if (data == nullptr) return {nullptr, 0};
        const int64_t own = channel - first;
        if (shape.channels_last) return {data + (piece.sample * shape.pixels + piece.pixel) * channels + own, channels};
        return {data + (piece.sample * channels + own) * shape.pixels + piece.pixel, shape.pixels};
    }
};

// What is known of one unit while it is worked on.
template <typename T>
struct State {
    explicit State(const Shape& shape)
        : pitch(shape.unit_channels() + 16), coefficients(size_t(kCoefficients * pitch)),
          moments(size_t(shape.pieces() * shape.unit_groups())), sums(size_t(shape.splits * 2 * shape.unit_channels())) {}

    // Of the channels from `channel` of the unit on.
    ByChannel<T> by_channel(int64_t channel = 0) const { return {coefficients.data() + channel, pitch}; }
    T* of(Coefficient coefficient) { return coefficients.data() + coefficient * pitch; }

    int64_t pitch;  // longer than the channels: a vector may be loaded from any of them
    std::vector<T> coefficients;
    std::vector<Moments<double>> moments;  // forward, [pieces, groups]
    std::vector<double> sums;              // backward, [splits, 2, channels]
};

// Calls body(channels of the piece from .. to, tensor) for x and for skip, where the piece has channels of them.
template <typename Stored, typename Body>
void for_sources(const Piece& piece, const Tensor<Stored> (&sources)[2], const Body& body) {
    for (int source = 0; source < 2; source++) {
        const Tensor<Stored>& tensor = sources[source];
        const int64_t from = std::max(piece.channel, tensor.first);
        const int64_t to = std::min(piece.channel + piece.channels, tensor.first + tensor.channels);
        if (from < to) body(from, to, source);
    }
}

template <typename Element, typename T, typename Stored>
void apply(const Shape& shape, Rows<const Stored> x, Rows<const Stored> grad, Rows<Stored> result, int64_t channels,
           int64_t pixels, ByChannel<T> by_channel, int64_t ahead = 0) {
    if (shape.channels_last) {
        using Block = Apply<Element, T, Stored, true>;
        dispatch<Block>(Block{x, grad, result, pixels, channels, by_channel, ahead});
    } else {
        using Block = Apply<Element, T, Stored, false>;
        dispatch<Block>(Block{x, grad, result, channels, pixels, by_channel, ahead});
    }
}

template <typename T>
T parameter(const T* values, int64_t channel, T otherwise) {
    return values == nullptr ? otherwise : values[channel];
}

template <typename T, typename Operator>
void run(const Operator& op, int threads) {
    const int64_t units = op.shape.units(), pieces = op.shape.pieces(), whole = units - units % threads;
    parallel_for(whole, threads, [&](int64_t first, int64_t last) {
        State<T> state(op.shape);
        for (int64_t unit = first; unit < last; unit++) {
            op.prepare(unit, state);
            for (int64_t piece = 0; piece < pieces; piece++) op.measure(unit, piece, state);
            op.finish(unit, state);
            for (int64_t piece = 0; piece < pieces; piece++) op.write(unit, piece, state, unit + 1 < last);
        }
    });
    std::vector<State<T>> states(size_t(units - whole), State<T>(op.shape));
    for (int64_t unit = whole; unit < units; unit++) op.prepare(unit, states[size_t(unit - whole)]);
    parallel_for((units - whole) * pieces, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++) op.measure(whole + i / pieces, i % pieces, states[size_t(i / pieces)]);
    });
    for (int64_t unit = whole; unit < units; unit++) op.finish(unit, states[size_t(unit - whole)]);
    parallel_for((units - whole) * pieces, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++) {
            op.write(whole + i / pieces, i % pieces, states[size_t(i / pieces)], false);
        }
    });
}

// Calls body(a value of the arithmetic's type, a value of the stored type).
template <typename Body>
void with_types(int dtype, const Body& body) {
    switch (Dtype(dtype)) {
        case Dtype::float64: return body(double(), double());
        case Dtype::float16: return body(float(), float16());
        case Dtype::bfloat16: return body(float(), bfloat16());
        default: return body(float(), float());
    }
}

}  // namespace
}  // namespace litevae
