// How the CPU divides the tensors of GroupNorm then SiLU among threads and caches, forward and backward.
//
// Read first: run, at the end. A unit is the part of a tensor whose statistics are computed together: one group of one
// sample in NCHW, where a group is contiguous, and one sample in channels_last. A unit is divided into pieces that fit
// the cache. First the sums over all its pieces are computed (measure), then all its pieces are written (write). A
// thread does both for one unit before the next, so that it writes from the cache, and prefetches the next unit while
// it writes. All threads together work on the units that remain when the number of units is no multiple of the threads.
// The pieces and the order of their sums depend on the shape alone, so the results do not depend on the number of
// threads.
//
// T is the dtype of the arithmetic, Stored that of the tensors. Operator is Forward (cpu_forward.cpp) or Backward.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "../cpu_threads.h"
#include "cpu_loops.h"
#include "cpu_sums.h"

// x, skip, grad and the results have one dtype and are dense, all NCHW or all channels_last. weight, bias and their
// gradients [C], mean and rstd [B, G] are float64 if x is, else float32. skip, weight, bias and their gradients may be
// null; mean and rstd too, if no backward will read them.
struct GroupNormArguments {
    const void *x, *skip, *weight, *bias;
    void *mean, *rstd, *result;  // result: y, or the gradient of x
    const void* grad;            // this pointer and the next three are for the backward only
    void *skip_grad, *weight_grad, *bias_grad;
    int64_t dtype, channels_last, sizes[5], threads;  // sizes: batch, channels of x and of skip, groups, pixels
    double eps;
};

namespace litevae {
namespace {

constexpr int64_t kPiece = 32768;  // elements of a piece, at most, if one pixel or channel allows it

struct Piece {
    int64_t sample, channel, channels, pixel, pixels;  // from `channel` on, `channels` of them; pixels likewise
};

struct NormShape {
    int64_t batch, x_channels, skip_channels, groups, pixels;
    bool channels_last;
    int64_t bands, band, splits, split;  // a unit has `bands` of `band` channels times `splits` of `split` pixels

    NormShape(const int64_t* sizes, bool channels_last)
        : batch(sizes[0]), x_channels(sizes[1]), skip_channels(sizes[2]), groups(sizes[3]), pixels(sizes[4]),
          channels_last(channels_last) {
        const int64_t pixel = channels_last ? channels() : 1;  // elements of a pixel
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

// A dense tensor with `channels` of all channels, from `first` on.
template <typename Stored>
struct Tensor {
    Stored* data;
    int64_t first, channels;

    // The rows of a piece, from `channel` on.
    Rows<Stored> rows(const NormShape& shape, const Piece& piece, int64_t channel) const {
        if (data == nullptr) return {nullptr, 0};
        const int64_t own = channel - first;
        if (shape.channels_last) return {data + (piece.sample * shape.pixels + piece.pixel) * channels + own, channels};
        return {data + (piece.sample * channels + own) * shape.pixels + piece.pixel, shape.pixels};
    }
};

// The statistics of one unit.
template <typename T>
struct State {
    explicit State(const NormShape& shape)
        : pitch(shape.unit_channels() + 16), coefficients(size_t(kCoefficients * pitch)),
          moments(size_t(shape.pieces() * shape.unit_groups())), sums(size_t(shape.splits * 2 * shape.unit_channels())) {}

    // The coefficients from `channel` of the unit on.
    ByChannel<T> by_channel(int64_t channel = 0) const { return {coefficients.data() + channel, pitch}; }
    T* of(Coefficient coefficient) { return coefficients.data() + coefficient * pitch; }

    int64_t pitch;  // channels and 16 more, as a vector may be loaded from any channel on
    std::vector<T> coefficients;
    std::vector<Moments<double>> moments;  // forward, [pieces, groups]
    std::vector<double> sums;              // backward, [splits, 2, channels]
};

// Calls body(from, to, source) for x (source 0) and skip (1), if channels `from` to `to` of the piece belong to it.
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
void apply(const NormShape& shape, Rows<const Stored> x, Rows<const Stored> grad, Rows<Stored> result, int64_t channels,
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
    const int64_t units = op.shape.units(), pieces = op.shape.pieces();
    const int team = int(std::clamp<int64_t>(threads, 1, units * pieces));
    std::vector<State<T>> states(size_t(units % team), State<T>(op.shape));  // of the units that remain
    for (size_t i = 0; i < states.size(); i++) op.prepare(units - int64_t(states.size() - i), states[i]);
    in_team(team, [&](int64_t thread, int64_t threads) {
        const auto share = [&](int64_t items, const auto& body) {
            for (int64_t i = items * thread / threads; i < items * (thread + 1) / threads; i++) body(i);
        };
        const int64_t whole = units - units % threads, rest = units - whole;
        if (whole > 0) {
            State<T> state(op.shape);
            share(whole, [&](int64_t unit) {
                op.prepare(unit, state);
                for (int64_t piece = 0; piece < pieces; piece++) op.measure(unit, piece, state);
                op.finish(unit, state);
                const bool fetch_next = unit + 1 < whole * (thread + 1) / threads;
                for (int64_t piece = 0; piece < pieces; piece++) op.write(unit, piece, state, fetch_next);
            });
        }
        if (rest == 0) return;
        const auto share_pieces = [&](const auto& body) {
            share(rest * pieces, [&](int64_t i) { body(whole + i / pieces, i % pieces, states[size_t(i / pieces)]); });
        };
        share_pieces([&](int64_t unit, int64_t piece, State<T>& state) { op.measure(unit, piece, state); });
        wait_for_team();
        share(rest, [&](int64_t i) { op.finish(whole + i, states[size_t(i)]); });
        wait_for_team();
        share_pieces([&](int64_t unit, int64_t piece, State<T>& state) { op.write(unit, piece, state, false); });
    });
}

// Calls body(T(), Stored()) for a dtype.
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
