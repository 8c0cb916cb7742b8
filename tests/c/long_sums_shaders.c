/* Shaders from the library's sources on sums of any length. The results are correct where the device's loops are long enough;
 * otherwise the call is refused. */
#include <sparkle.h>
#include <sparkle_reference.h>

#include <math.h>

#include "check.h"

static char *source_of(const struct conv *it, int shared, int chains) {
  sparkle_conv2d_desc desc;
  sparkle_conv2d_desc_init(&desc);
  desc.c = it->c, desc.h = it->h, desc.w = it->w, desc.k = it->k, desc.r = it->r, desc.s = it->s;
  desc.pad_h = it->pad_h, desc.pad_w = it->pad_w;
  sparkle_shader_options options = {.size = sizeof options, .shared = shared, .chains = chains};
  size_t length = 0;
  CHECK(!sparkle_shader_source(&desc, &options, NULL, 0, &length), "%s", sparkle_last_error());
  char *source = malloc(length + 1);
  CHECK(!sparkle_shader_source(&desc, &options, source, length + 1, &length), "%s", sparkle_last_error());
  return source;
}

/* Returns whether the call computed, with correct outputs. If not, they are unchanged and the error names the iterations. */
static int outcome(const char *what, float time, const struct conv *it, const float *input, const float *weights,
                   float *output) {
  if (time >= 0) {
    check_conv(what, it, input, weights, NULL, 0, output);
    return 1;
  }
  check_untouched(what, output, output_len(it));
  CHECK(strstr(sparkle_last_error(), "iterations"), "%s", sparkle_last_error());
  return 0;
}

static int check_sums(long c, long side, long k, long size, long pad) {
  struct conv it = {1, c, side, side, k, size, size, 1, 1, pad, pad, 1, 1, 1};
  float *input = integers(input_len(&it), 1), *weights = integers(weights_len(&it), 2);
  int n = 1, r = (int)size, p = (int)conv_p(&it), q = (int)conv_q(&it), right = 0;
  for (int shared = 0; shared < 2; shared++)
    for (int chains = 1; chains <= 2; chains++) {
      char *source = source_of(&it, shared, chains);
      float *output = filled(output_len(&it), CANARY);
      float time = gpu_execute_conv2d_with_shader(input, weights, output, n, (int)c, (int)side, (int)side, (int)k, r, 1,
                                                  (int)pad, p, q, source);
      right += outcome("a source", time, &it, input, weights, output);
      for (size_t i = 0; i < output_len(&it); i++) output[i] = CANARY;
      CHECK(gpu_compile_custom_shader(source) > 0, "%s", sparkle_last_error());
      time = gpu_execute_conv2d_custom(0, input, weights, output, n, (int)c, (int)side, (int)side, (int)k, r, 1, (int)pad,
                                       p, q);
      right += outcome("a custom program", time, &it, input, weights, output);
      free(source), free(output);
    }
  free(input), free(weights);
  return right;
}

int main(void) {
  CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
  CHECK(check_sums(700, 5, 9, 3, 1) == 8, "700 channels fit in every driver's loops");
  check_sums(1024, 7, 8, 7, 0);
  check_sums(30000, 1, 3, 1, 0);
  check_sums(100000, 1, 1, 1, 0);
  gpu_cleanup_opengl();
  puts("correct or refused");
  return 0;
}
