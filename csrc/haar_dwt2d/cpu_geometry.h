// Sizes and addresses of the rows of every level, in the tensors and in scratch memory. Read first: PyramidShape.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

namespace litevae {

constexpr int kMaxLevels = 16;

// The place of a plane in a dense tensor: its first element, and the elements from one sub-band, row and pixel to the
// next.
struct Plane {
    int64_t start, band, row, pitch;
};

struct PyramidShape {
    int64_t batch, channels;
    bool channels_last;
    int levels;
    int64_t heights[kMaxLevels + 1], widths[kMaxLevels + 1];

    PyramidShape(const int64_t* sizes, int levels, bool channels_last)
        : batch(sizes[0]), channels(sizes[1]), channels_last(channels_last), levels(levels) {
        heights[0] = sizes[2], widths[0] = sizes[3];
        for (int level = 1; level <= levels; level++) {
            heights[level] = (heights[level - 1] + 1) / 2, widths[level] = (widths[level - 1] + 1) / 2;
        }
    }
    int64_t values() const { return batch * channels * heights[0] * widths[0]; }
    int64_t planes() const { return channels_last ? batch : batch * channels; }
    int64_t channels_of_a_pixel() const { return channels_last ? channels : 1; }
    // Plane `index` of a tensor [B, copies * C, height, width] of a level; copies: 4 for sub-bands, 1 for the image.
    Plane plane(int64_t index, int level, int64_t copies) const {
        const int64_t area = heights[level] * widths[level], all = copies * channels;
        if (channels_last) return {index * all * area, channels, widths[level] * all, all};
        const int64_t sample = index / channels, channel = index % channels;
        return {(sample * all + channel) * area, channels * area, widths[level], 1};
    }
    // Rows of the coarsest level in one piece of a plane, which has about 65536 values of the image.
    int64_t coarse_rows_per_piece() const {
        const int64_t values = (widths[0] * channels_of_a_pixel()) << std::min(levels, 20);
        return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, values));
    }
    int64_t pieces() const { return (heights[levels] + coarse_rows_per_piece() - 1) / coarse_rows_per_piece(); }
};

template <typename T>
class Scratch {  // rows of zeros; each starts at a cache line, and one more cache line follows it
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
