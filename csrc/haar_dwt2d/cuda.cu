// Which kernels compute the multi-level Haar transform and its inverse on a GPU? A pair for each memory format.
//
//     NCHW            haar_dwt2d_fwd_kernel                  haar_dwt2d_bwd_kernel                  cuda_strips*.h
//     channels_last   haar_dwt2d_fwd_channels_last_kernel    haar_dwt2d_bwd_channels_last_kernel    cuda_tiles*.h
//
// Each makes up to 4 levels in one launch, reads its input once and writes each output once. More levels cascade
// through an L in the arithmetic's type: a launch leaves it in low_copy [B, C, h, w] for the next; null where there is
// but one. `transpose` makes the fwd kernels the gradient of the inverse, and the bwd kernels the gradient of the
// transform. All offsets are 64-bit.
#include "cuda_strips_bwd.h"
#include "cuda_strips_fwd.h"
#include "cuda_tiles_bwd.h"
#include "cuda_tiles_fwd.h"
