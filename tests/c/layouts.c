/* Orders, paddings, signals, double precision, weights that are replaced, and the call without a status, from C. */
#include "new_api.h"

static sparkle_device *device;

enum { N = 2, C = 6, H = 7, W = 9, K = 4, R = 3, S = 2 };

static float at(const float *image, int layout, long channels, long rows, long columns, long n, long c, long y, long x) {
  return layout == SPARKLE_TENSOR_NCHW ? image[((n * channels + c) * rows + y) * columns + x]
                                       : image[((n * rows + y) * columns + x) * channels + c];
}

static float tap(const float *weights, int layout, long k, long c, long r, long s) {
  if (layout == SPARKLE_WEIGHTS_OIHW) return weights[((k * C + c) * R + r) * S + s];
  if (layout == SPARKLE_WEIGHTS_HWIO) return weights[((r * S + s) * C + c) * K + k];
  return weights[((k * R + r) * S + s) * C + c];
}

static sparkle_conv2d_desc layer(int input, int output, int weights) {
  sparkle_conv2d_desc desc;
  OK(sparkle_conv2d_desc_init(&desc));
  CHECK(desc.size == sizeof desc, "size %zu", desc.size);
  desc.n = N, desc.c = C, desc.h = H, desc.w = W, desc.k = K, desc.r = R, desc.s = S;
  desc.algorithm = SPARKLE_ALGORITHM_DIRECT;
  desc.input_layout = input, desc.output_layout = output, desc.weights_layout = weights;
  return desc;
}

static void check_orders(void) {
  float *x = integers(N * C * H * W, 1), *w = integers(K * C * R * S, 2), *y = floats(N * K * (H + 1) * W);
  int compared = 0;
  for (int order = 0; order < 12; order++) {
    sparkle_conv2d_desc desc = layer(order % 2, order / 2 % 2, order / 4);
    desc.padding = SPARKLE_PADDING_SIDES;
    desc.pad_bottom = 3, desc.pad_right = 1;
    int64_t p = 0, q = 0;
    OK(sparkle_conv2d_output_size(&desc, &p, &q));
    CHECK(p == H + 1 && q == W, "%d x %d", (int)p, (int)q);
    size_t length = (size_t)(N * K * p * q);
    OK(sparkle_conv2d(device, &desc, x, N * C * H * W, w, K * C * R * S, NULL, 0, y, length));
    for (long n = 0; n < N; n++)
      for (long k = 0; k < K; k++)
        for (long i = 0; i < p; i++)
          for (long j = 0; j < q; j++) {
            double sum = 0;
            for (long c = 0; c < C; c++)
              for (long r = 0; r < R; r++)
                for (long s = 0; s < S; s++)
                  if (i + r < H && j + s < W)
                    sum += (double)at(x, desc.input_layout, C, H, W, n, c, i + r, j + s) *
                           tap(w, desc.weights_layout, k, c, r, s);
            CHECK(at(y, desc.output_layout, K, p, q, n, k, i, j) == sum, "order %d", order);
            compared++;
          }
  }
  CHECK(compared > 1000, "%d", compared);
  free(x), free(w), free(y);
}

static void check_same(void) {
  sparkle_conv2d_desc desc = layer(0, 0, 0);
  int64_t p = 0, q = 0;
  desc.padding = SPARKLE_PADDING_SAME, desc.stride_h = 2, desc.stride_w = 3;
  OK(sparkle_conv2d_output_size(&desc, &p, &q));
  CHECK(p == 4 && q == 3, "%d x %d", (int)p, (int)q);
}

static void expect(sparkle_conv2d_desc desc, const char *message) {
  int64_t p, q;
  CHECK(sparkle_conv2d_output_size(&desc, &p, &q) == SPARKLE_ERROR_INVALID_ARGUMENT, "%s", message);
  CHECK(strncmp(sparkle_last_error(), message, strlen(message)) == 0, "%s, not %s", sparkle_last_error(), message);
}

static void check_refusals(void) {
  sparkle_conv2d_desc desc = layer(0, 0, 0);
  desc.padding = 3;
  expect(desc, "padding is 3; expected 0, 1 or 2 (SPARKLE_PADDING");
  desc = layer(2, 0, 0);
  expect(desc, "input_layout is 2; expected 0 or 1 (SPARKLE_TENSOR_NCHW");
  desc = layer(0, -1, 0);
  expect(desc, "output_layout is -1; ");
  desc = layer(0, 0, 7);
  expect(desc, "weights_layout is 7; expected 0, 1 or 2 (SPARKLE_WEIGHTS");
  desc = layer(0, 0, 0);
  desc.pad_right = 1;
  expect(desc, "pad_right is 1; expected 0 unless desc.padding is SPARKLE_PADDING_SIDES");
  desc.padding = SPARKLE_PADDING_SIDES, desc.pad_bottom = -4;
  expect(desc, "pad_bottom is -4; ");
  desc = layer(0, 0, 0);
  desc.padding = SPARKLE_PADDING_SAME, desc.pad_w = 1;
  expect(desc, "pad_w is 1; expected 0 with SPARKLE_PADDING_SAME");
  const size_t bytes = 2 * sizeof desc;
  unsigned char *memory = (unsigned char *)malloc(bytes);
  CHECK(memory != NULL, "memory");
  sparkle_conv2d_desc *large = (sparkle_conv2d_desc *)(void *)memory;
  CHECK(sparkle_conv2d_desc_init_sized(large, bytes) == SPARKLE_ERROR_INVALID_ARGUMENT, "too long");
  CHECK(sparkle_conv2d_desc_init_sized(large, 8) == SPARKLE_ERROR_INVALID_ARGUMENT, "too short");
  CHECK(sparkle_conv2d_desc_init_sized(NULL, sizeof desc) == SPARKLE_ERROR_NULL_POINTER, "NULL");
  /* A program of the first header: nothing after its fields is written or read. */
  memset(memory, 0x55, bytes);
  OK((sparkle_conv2d_desc_init)(large));
  CHECK(large->size == 136 && memory[136] == 0x55, "%zu", large->size);
  int64_t p, q;
  OK(sparkle_conv2d_output_size(large, &p, &q));
  CHECK(p == 1 && q == 1, "one pixel");
  free(memory);
}

static void check_signals(void) {
  enum { L = 20, T = 5, Q = 10 };
  sparkle_conv1d_desc desc;
  OK(sparkle_conv1d_desc_init(&desc));
  desc.n = N, desc.c = C, desc.w = L, desc.k = K, desc.s = T, desc.stride = 2;
  desc.padding = SPARKLE_PADDING_SIDES, desc.pad_left = 1, desc.pad_right = 2;
  desc.input_layout = SPARKLE_TENSOR_NHWC;
  float *x = integers(N * C * L, 3), *w = integers(K * C * T, 4), *y = floats(N * K * Q), *again = floats(N * K * Q);
  OK(sparkle_conv1d(device, &desc, x, N * C * L, w, K * C * T, NULL, 0, y, N * K * Q));
  for (int n = 0; n < N; n++)
    for (int k = 0; k < K; k++)
      for (int q = 0; q < Q; q++) {
        double sum = 0;
        for (int c = 0; c < C; c++)
          for (int s = 0; s < T; s++) {
            int i = 2 * q + s - 1;
            if (i >= 0 && i < L) sum += (double)x[(n * L + i) * C + c] * w[(k * C + c) * T + s];
          }
        CHECK(y[(n * K + k) * Q + q] == sum, "signal %d, channel %d, sample %d", n, k, q);
      }
  sparkle_conv2d_desc image;
  OK(sparkle_conv2d_desc_init(&image));
  OK(sparkle_conv1d_as_conv2d(&desc, &image));
  CHECK(image.h == 1 && image.w == L && image.pad_right == 2, "an image");
  OK(sparkle_conv2d(device, &image, x, N * C * L, w, K * C * T, NULL, 0, again, N * K * Q));
  CHECK(memcmp(y, again, sizeof *y * N * K * Q) == 0, "the same");
  desc.pad_left = -1;
  CHECK(sparkle_conv1d_as_conv2d(&desc, &image) == SPARKLE_ERROR_INVALID_ARGUMENT, "negative");
  CHECK(strncmp(sparkle_last_error(), "pad_left is -1", 14) == 0, "%s", sparkle_last_error());
  free(x), free(w), free(y), free(again);
}

static double *doubles(const float *from, size_t count) {
  double *memory = (double *)malloc(count * sizeof *memory);
  CHECK(memory != NULL, "%zu doubles", count);
  for (size_t i = 0; i < count; i++) memory[i] = from[i];
  return memory;
}

static void check_doubles_and_nan(void) {
  sparkle_conv2d_desc desc = layer(1, 1, 1);
  desc.bias = 1;
  size_t in = N * C * H * W, of = K * C * R * S, out = (size_t)N * K * (H - R + 1) * (W - S + 1);
  float *x = integers(in, 5), *w = integers(of, 6), *b = integers(K, 7), *y = floats(out);
  double *x64 = doubles(x, in), *w64 = doubles(w, of), *b64 = doubles(b, K), *y64 = doubles(y, out);
  OK(sparkle_conv2d(device, &desc, x, in, w, of, b, K, y, out));
  OK(sparkle_conv2d_f64(device, &desc, x64, in, w64, of, b64, K, y64, out));
  for (size_t i = 0; i < out; i++) CHECK(y64[i] == y[i], "element %zu", i);
  y64[0] = 5;
  CHECK(sparkle_conv2d_f64(device, &desc, x64, in, w64, of, NULL, 0, y64, out) == SPARKLE_ERROR_INVALID_ARGUMENT, "bias");
  CHECK(sparkle_conv2d_f64(device, &desc, x64, in - 1, w64, of, b64, K, y64, out) == SPARKLE_ERROR_INVALID_ARGUMENT,
        "length");
  CHECK(sparkle_conv2d_f64(device, &desc, x64, in, w64, of, b64, K, x64, in) == SPARKLE_ERROR_INVALID_ARGUMENT, "place");
  CHECK(y64[0] == 5, "untouched");
  float *z = filled(out, CANARY);
  sparkle_conv2d_or_nan(&desc, x, in, w, of, b, K, z, out);
  CHECK(memcmp(y, z, sizeof *y * out) == 0, "without a status");
  desc.stride_h = 0;
  sparkle_conv2d_or_nan(&desc, x, in, w, of, b, K, z, out);
  for (size_t i = 0; i < out; i++) CHECK(isnan(z[i]), "element %zu", i);
  CHECK(strncmp(sparkle_last_error(), "stride_h is 0", 13) == 0, "%s", sparkle_last_error());
  sparkle_conv2d_or_nan(NULL, x, in, w, of, b, K, NULL, out);
  free(x), free(w), free(b), free(y), free(z), free(x64), free(w64), free(b64), free(y64);
}

static void check_weights(void) {
  sparkle_conv2d_desc desc = layer(1, 1, 2);
  size_t in = N * C * H * W, of = K * C * R * S, out = (size_t)N * K * (H - R + 1) * (W - S + 1);
  float *x = integers(in, 8), *w = integers(of, 9), *other = integers(of, 10), *y = floats(out), *z = floats(out);
  sparkle_plan *plan = NULL;
  OK(sparkle_plan_create(device, &desc, other, of, NULL, 0, &plan));
  for (int step = 0; step < 4; step++) {
    float *now = step % 2 ? other : w;
    OK(sparkle_plan_set_weights(plan, now, of, NULL, 0));
    OK(sparkle_plan_execute(plan, x, in, y, out));
    OK(sparkle_conv2d(device, &desc, x, in, now, of, NULL, 0, z, out));
    CHECK(memcmp(y, z, sizeof *y * out) == 0, "step %d", step);
  }
  CHECK(sparkle_plan_set_weights(plan, w, of - 1, NULL, 0) == SPARKLE_ERROR_INVALID_ARGUMENT, "length");
  CHECK(sparkle_plan_set_weights(plan, w, of, w, K) == SPARKLE_ERROR_INVALID_ARGUMENT, "bias");
  CHECK(sparkle_plan_set_weights(plan, NULL, of, NULL, 0) == SPARKLE_ERROR_NULL_POINTER, "NULL");
  CHECK(sparkle_plan_set_weights(NULL, w, of, NULL, 0) == SPARKLE_ERROR_NULL_POINTER ||
            strlen(sparkle_last_error()) > 0, "no plan");
  OK(sparkle_plan_execute(plan, x, in, y, out));
  CHECK(memcmp(y, z, sizeof *y * out) == 0, "the old weights");
  OK(sparkle_plan_destroy(plan));
  CHECK(sparkle_plan_set_weights(plan, w, of, NULL, 0) == SPARKLE_ERROR_INVALID_HANDLE, "destroyed");
  free(x), free(w), free(other), free(y), free(z);
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: layouts DEVICE");
  OK(sparkle_device_open(argv[1], &device));
  check_orders();
  check_same();
  check_refusals();
  check_signals();
  check_doubles_and_nan();
  check_weights();
  OK(sparkle_device_close(device));
  puts("layouts");
  return 0;
}
