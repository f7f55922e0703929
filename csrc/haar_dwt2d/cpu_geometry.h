// Where do the rows of every level lie, in memory and in scratch?
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

namespace litevae {

constexpr int kMaxLevels = 16;

// Where plane `plane` of a dense tensor [B, copies * C, height, width] lies; copies is 4 for packed sub-bands.
struct Plane {
    int64_t start, band, row, pitch;  // in elements
};

struct Shape {
    int64_t batch, channels;
    bool channels_last;
    int levels;
    int64_t heights[kMaxLevels + 1], widths[kMaxLevels + 1];

    Shape(const int64_t* sizes, int levels, bool channels_last)
        : batch(sizes[0]), channels(sizes[1]), channels_last(channels_last), levels(levels) {
        heights[0] = sizes[2], widths[0] = sizes[3];
        for (int level = 1; level <= levels; level++) {
            heights[level] = (heights[level - 1] + 1) / 2, widths[level] = (widths[level - 1] + 1) / 2;
        }
    }
    int64_t values() const { return batch * channels * heights[0] * widths[0]; }
    int64_t planes() const { return channels_last ? batch : batch * channels; }
    int64_t channels_of_a_pixel() const { return channels_last ? channels : 1; }
    Plane plane(int64_t index, int level, int64_t copies) const {
        const int64_t area = heights[level] * widths[level], all = copies * channels;
        if (channels_last) return {index * all * area, channels, widths[level] * all, all};
        const int64_t sample = index / channels, channel = index % channels;
        return {(sample * all + channel) * area, channels * area, widths[level], 1};
    }
    // Rows of the coarsest level that make one piece of work: enough pixels to be worth handing to a thread.
    int64_t coarse_rows_a_piece() const {
        const int64_t values = (widths[0] * channels_of_a_pixel()) << std::min(levels, 20);
        return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, values));
    }
    int64_t pieces() const { return (heights[levels] + coarse_rows_a_piece() - 1) / coarse_rows_a_piece(); }
};

template <typename T>
class Scratch {  // zeroed rows, each at the start of a cache line and with another one after it
   public:
    Scratch(int64_t values, int64_t rows) : values_(new T[size_t(values + (2 * rows + 1) * kLine)]()) {
        while (reinterpret_cast<uintptr_t>(values_.get() + used_) % 64 != 0) used_++;
    }
    T* take(int64_t values) {
        T* result = values_.get() + used_;
        used_ += (values + kLine - 1) / kLine * kLine + kLine;
        return result;
    }

   private:
    static constexpr int64_t kLine = 64 / int64_t(sizeof(T));
    std::unique_ptr<T[]> values_;
    int64_t used_ = 0;
};

}  // namespace litevae
