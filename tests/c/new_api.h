/* Shared by the programs that use the sparkle_ interface. */
#ifndef NEW_API_H
#define NEW_API_H

#include <sparkle.h>

#include "check.h"

#define OK(call)                                                                                            \
  do {                                                                                                      \
    sparkle_status status_ = (call);                                                                        \
    CHECK(status_ == SPARKLE_OK, "%s: %s", sparkle_status_string(status_), sparkle_last_error());           \
  } while (0)

static inline sparkle_conv2d_desc describe(const struct conv *it, int bias, int relu) {
  sparkle_conv2d_desc desc;
  OK(sparkle_conv2d_desc_init(&desc));
  desc.algorithm = SPARKLE_ALGORITHM_DIRECT; /* Exact on the small integers of these tests. */
  CHECK(desc.size == sizeof desc && desc.n == 1 && desc.stride_w == 1 && desc.pad_h == 0 && desc.groups == 1,
        "the defaults");
  desc.n = it->n, desc.c = it->c, desc.h = it->h, desc.w = it->w;
  desc.k = it->k, desc.r = it->r, desc.s = it->s;
  desc.stride_h = it->stride_h, desc.stride_w = it->stride_w;
  desc.pad_h = it->pad_h, desc.pad_w = it->pad_w;
  desc.dilation_h = it->dilation_h, desc.dilation_w = it->dilation_w;
  desc.groups = it->groups;
  desc.bias = bias, desc.relu = relu;
  return desc;
}

#endif
