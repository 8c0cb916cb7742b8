/* Shared by the test programs: checks, data on which fp32 is exact, and a naive convolution. */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program with the source line and a message unless `condition` holds. */
#define CHECK(condition, ...)                                         \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                                   \
      fprintf(stderr, "\n");                                          \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

/* The value of every output element before a call. */
#define CANARY (-12345.0f)

static inline float *floats(size_t count) {
  float *memory = (float *)malloc((count ? count : 1) * sizeof(float));
  CHECK(memory != NULL, "%zu floats", count);
  return memory;
}

static inline float *filled(size_t count, float value) {
  float *memory = floats(count);
  for (size_t i = 0; i < count; i++) memory[i] = value;
  return memory;
}

/* Small integers. All sums of their products are exact in fp32, in any order. */
static inline float *integers(size_t count, unsigned seed) {
  float *memory = floats(count);
  for (size_t i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    memory[i] = (float)((int)(seed >> 24) % 7 - 3);
  }
  return memory;
}

struct conv {
  long n, c, h, w, k, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
};

static inline long conv_p(const struct conv *it) {
  return (it->h + 2 * it->pad_h - it->dilation_h * (it->r - 1) - 1) / it->stride_h + 1;
}

static inline long conv_q(const struct conv *it) {
  return (it->w + 2 * it->pad_w - it->dilation_w * (it->s - 1) - 1) / it->stride_w + 1;
}

static inline size_t input_len(const struct conv *it) { return (size_t)(it->n * it->c * it->h * it->w); }

static inline size_t weights_len(const struct conv *it) {
  return (size_t)(it->k * (it->c / it->groups) * it->r * it->s);
}

static inline size_t output_len(const struct conv *it) {
  return (size_t)(it->n * it->k * conv_p(it) * conv_q(it));
}

/* One output of a convolution, in double. */
static inline double conv_at(const struct conv *it, const float *input, const float *weights, const float *bias,
                             int relu, long n, long k, long p, long q) {
  long in_group = it->c / it->groups, first = k / (it->k / it->groups) * in_group;
  double sum = bias ? bias[k] : 0.0;
  for (long c = 0; c < in_group; c++)
    for (long r = 0; r < it->r; r++)
      for (long s = 0; s < it->s; s++) {
        long y = p * it->stride_h + r * it->dilation_h - it->pad_h;
        long x = q * it->stride_w + s * it->dilation_w - it->pad_w;
        if (y < 0 || y >= it->h || x < 0 || x >= it->w) continue;
        sum += (double)input[((n * it->c + first + c) * it->h + y) * it->w + x] *
               weights[((k * in_group + c) * it->r + r) * it->s + s];
      }
  return relu && sum < 0 ? 0.0 : sum;
}

/* Checks that every output is exact and that not all are zero. */
static inline void check_conv(const char *what, const struct conv *it, const float *input, const float *weights,
                              const float *bias, int relu, const float *output) {
  long P = conv_p(it), Q = conv_q(it), i = 0, nonzero = 0;
  for (long n = 0; n < it->n; n++)
    for (long k = 0; k < it->k; k++)
      for (long p = 0; p < P; p++)
        for (long q = 0; q < Q; q++, i++) {
          double expected = conv_at(it, input, weights, bias, relu, n, k, p, q);
          CHECK(output[i] == expected, "%s: output (%ld, %ld, %ld, %ld) is %g, expected %g", what, n, k, p, q,
                output[i], expected);
          nonzero += expected != 0;
        }
  CHECK(i > 0 && nonzero > 0, "%s: nothing was compared", what);
}

static inline void check_untouched(const char *what, const float *memory, size_t count) {
  for (size_t i = 0; i < count; i++) CHECK(memory[i] == CANARY, "%s: element %zu was written", what, i);
}

#endif
