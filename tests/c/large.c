/* 4,259,840 outputs: more than 65,535 workgroups of 64, which one dimension of a grid need not have. */
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
  printf("all of them\n");
  return 0;
}
