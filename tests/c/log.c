/* The log callback. The test sets SPARKLE_DEVISE, an unknown variable, so the library warns when a device is first opened. */
#include "new_api.h"

static struct {
  int calls;
  char message[256];
} seen;

static void callback(int32_t level, const char *message, void *user) {
  CHECK(user == &seen, "another user");
  CHECK(level >= 0 && level <= 2, "level %d", level);
  if (level < 2) return;
  seen.calls++;
  snprintf(seen.message, sizeof seen.message, "%s", message);
  /* A callback may call the library. */
  static const struct conv CONV = {1, 2, 4, 5, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1};
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  float *input = integers(input_len(&CONV), 1), *weights = integers(weights_len(&CONV), 2);
  float *output = filled(output_len(&CONV), NAN);
  OK(sparkle_conv2d(NULL, &desc, input, input_len(&CONV), weights, weights_len(&CONV), NULL, 0, output, output_len(&CONV)));
  check_conv("log", &CONV, input, weights, NULL, 0, output);
  OK(sparkle_finalize());
  free(input), free(weights), free(output);
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: log set|unset|none");
  if (strcmp(argv[1], "none") != 0) OK(sparkle_set_log_callback(callback, &seen));
  if (strcmp(argv[1], "unset") == 0) OK(sparkle_set_log_callback(NULL, NULL));
  sparkle_device *device = NULL;
  OK(sparkle_device_open("cpu", &device));
  OK(sparkle_device_close(device));
  printf("%d: %s\n", seen.calls, seen.message);
  return 0;
}
