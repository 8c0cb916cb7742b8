/* 4,259,840 outputs need more than 65,535 workgroups of 64. GL guarantees no more than 65,535 in one dimension. */
#include "reference.h"

int main(void) {
  struct conv it = square(1, 1, 128, 128, 260, 1, 1, 0);
  CHECK(output_len(&it) == 4259840, "%zu outputs", output_len(&it));
  float *input = integers(input_len(&it), 1), *weights = integers(weights_len(&it), 2);
  float *output = filled(output_len(&it), NAN);
  float time = gpu_execute_conv2d_fortran(input, weights, output, NUMBERS(&it));
  CHECK(time > 0, "%s", sparkle_last_error());
  check_conv("large", &it, input, weights, NULL, 0, output);
  gpu_cleanup_opengl();
  free(input), free(weights), free(output);
  printf("every output is correct\n");
  return 0;
}
