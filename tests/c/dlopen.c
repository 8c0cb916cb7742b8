/* Loads, uses and closes a library 50 times. The first argument is its path, the second the device. */
#define _POSIX_C_SOURCE 200809L
#include <sparkle.h>

#include <dlfcn.h>

#include "check.h"

/* Loads the function `name` of the library as `name_`. ISO C cannot convert an object pointer to a function pointer; POSIX
 * documents this conversion for dlsym. */
#define SYMBOL(library, name)                     \
  __typeof__(&name) name##_ = NULL;               \
  *(void **)&name##_ = dlsym(library, #name);     \
  CHECK(name##_ != NULL, "%s", dlerror())

static const struct conv CONV = {1, 3, 9, 8, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1};

int main(int argc, char **argv) {
  CHECK(argc == 3, "usage: dlopen LIBRARY DEVICE");
  CHECK(dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) == NULL, "the program is linked with the library");
  float *input = integers(input_len(&CONV), 1), *weights = integers(weights_len(&CONV), 2);
  for (int round = 0; round < 50; round++) {
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL, "%s", dlerror());
    SYMBOL(library, sparkle_conv2d_desc_init);
    SYMBOL(library, sparkle_device_open);
    SYMBOL(library, sparkle_device_close);
    SYMBOL(library, sparkle_conv2d);
    SYMBOL(library, sparkle_last_error);
    SYMBOL(library, sparkle_finalize);
    sparkle_conv2d_desc desc;
    CHECK(sparkle_conv2d_desc_init_(&desc) == SPARKLE_OK, "%s", sparkle_last_error_());
    desc.n = CONV.n, desc.c = CONV.c, desc.h = CONV.h, desc.w = CONV.w;
    desc.k = CONV.k, desc.r = CONV.r, desc.s = CONV.s, desc.pad_h = CONV.pad_h, desc.pad_w = CONV.pad_w;
    float *output = filled(output_len(&CONV), NAN);
    sparkle_device *device = NULL;
    CHECK(sparkle_device_open_(argv[2], &device) == SPARKLE_OK, "%s", sparkle_last_error_());
    CHECK(sparkle_conv2d_(device, &desc, input, input_len(&CONV), weights, weights_len(&CONV), NULL, 0, output,
                          output_len(&CONV)) == SPARKLE_OK, "%s", sparkle_last_error_());
    check_conv("dlopen", &CONV, input, weights, NULL, 0, output);
    free(output);
    /* With and without closing the device and finalising. */
    if (round % 4 > 1) CHECK(sparkle_device_close_(device) == SPARKLE_OK, "%s", sparkle_last_error_());
    if (round % 2) CHECK(sparkle_finalize_() == SPARKLE_OK, "%s", sparkle_last_error_());
    CHECK(dlclose(library) == 0, "%s", dlerror());
  }
  free(input), free(weights);
  printf("50 times\n");
  return 0;
}
