/* A statically linked program has no dynamic linker, so it can load no driver. Errors say so, and the CPU computes. */
#include <sparkle_reference.h>

#include "new_api.h"

static const struct conv CONV = {2, 8, 16, 17, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1};

static void compute(const char *selector) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  float *input = integers(input_len(&CONV), 1), *weights = integers(weights_len(&CONV), 2);
  float *output = filled(output_len(&CONV), CANARY);
  sparkle_device *device;
  OK(sparkle_device_open(selector, &device));
  OK(sparkle_conv2d(device, &desc, input, input_len(&CONV), weights, weights_len(&CONV), NULL, 0, output,
                    output_len(&CONV)));
  check_conv(selector, &CONV, input, weights, NULL, 0, output);
  sparkle_timing timing = {0};
  timing.size = sizeof timing;
  OK(sparkle_last_timing(&timing));
  CHECK(strcmp(timing.device, "cpu") == 0, "%s on %s", selector, timing.device);
  OK(sparkle_device_close(device));
  free(input), free(weights), free(output);
}

int main(void) {
  size_t count = 0;
  OK(sparkle_device_count(&count));
  CHECK(count == 2, "%zu devices", count);
  sparkle_device_info info = {0};
  info.size = sizeof info;
  OK(sparkle_device_describe(1, &info));
  CHECK(info.id[0] == 0 && strstr(info.reason, "linked statically"), "\"%s\": %s", info.id, info.reason);
  sparkle_device *device = NULL;
  for (int again = 0; again < 2; again++) {
    CHECK(sparkle_device_open("gl:0", &device) == SPARKLE_ERROR_NO_DEVICE, "%s", sparkle_last_error());
    CHECK(strstr(sparkle_last_error(), "linked statically") && device == NULL, "%s", sparkle_last_error());
  }
  CHECK(gpu_initialize_opengl() == 0 && strstr(sparkle_last_error(), "linked statically"), "%s", sparkle_last_error());
  compute("auto");
  compute("cpu");
  printf("without a dynamic linker\n");
  return 0;
}
