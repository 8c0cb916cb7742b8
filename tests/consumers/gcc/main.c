/* A 3x3 kernel of ones over an image of ones counts the pixels below it. */
#include <sparkle.h>
#include <stdio.h>

int main(void) {
  float image[5 * 5], weights[3 * 3], counts[5 * 5];
  for (int i = 0; i < 25; i++) image[i] = 1;
  for (int i = 0; i < 9; i++) weights[i] = 1;
  sparkle_conv2d_desc desc;
  sparkle_conv2d_desc_init(&desc);
  desc.c = desc.k = 1, desc.h = desc.w = 5, desc.r = desc.s = 3, desc.pad_h = desc.pad_w = 1;
  if (sparkle_conv2d(NULL, &desc, image, 25, weights, 9, NULL, 0, counts, 25) != SPARKLE_OK) {
    fprintf(stderr, "%s\n", sparkle_last_error());
    return 1;
  }
  printf("%g %g %g\n", counts[0], counts[1], counts[6]);
  return 0;
}
