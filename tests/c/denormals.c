/* Every thread keeps denormal numbers, or flushes them to zero if SPARKLE_FLUSH_DENORMALS is set. The caller's own mode does not
 * change. The argument, "kept" or "flushed", is what is expected. */
#include "new_api.h"

#include <xmmintrin.h>

enum { N = 160, K = 8 };

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: denormals kept | flushed");
  int flushed = strcmp(argv[1], "flushed") == 0;
  sparkle_device *device = NULL;
  OK(sparkle_device_open("cpu", &device));
  OK(sparkle_set_num_threads(2));
  const struct conv conv = {1, K, N, N, N, 1, 1, 1, 1, 0, 0, 1, 1, 1};
  sparkle_conv2d_desc desc = describe(&conv, 0, 0);
  size_t in = input_len(&conv), w = weights_len(&conv), out = output_len(&conv);
  /* Denormal operands, and normal operands with denormal products. */
  const float operands[2][2] = {{1e-40f, 2.0f}, {1e-20f, 1e-20f}};
  for (int i = 0; i < 2; i++) {
    float x = operands[i][0], y = operands[i][1];
    float *input = filled(in, x), *weights = filled(w, y), *output = filled(out, CANARY);
    unsigned before = _mm_getcsr();
    OK(sparkle_conv2d(device, &desc, input, in, weights, w, NULL, 0, output, out));
    CHECK(_mm_getcsr() == before, "MXCSR is %x, was %x", _mm_getcsr(), before);
    float expected = flushed ? 0.0f : (float)(K * (double)x * y);
    CHECK((expected == 0) == flushed, "%a", expected);
    for (size_t j = 0; j < out; j++)
      CHECK(fabsf(output[j] - expected) <= expected * 1e-3f, "output %zu of %d is %a, not %a", j, i, output[j], expected);
    free(input), free(weights), free(output);
  }
  printf("%s\n", argv[1]);
  return 0;
}
