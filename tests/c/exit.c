/* Returns from main while another thread computes on the device that the argument names. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>

static const struct conv CONV = {1, 16, 32, 32, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1};

static pthread_barrier_t computing;

static void *work(void *argument) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  float *input = integers(input_len(&CONV), 1), *weights = integers(weights_len(&CONV), 2);
  float *output = floats(output_len(&CONV));
  sparkle_device *device = NULL;
  sparkle_plan *plan = NULL;
  OK(sparkle_device_open(argument, &device));
  OK(sparkle_plan_create(device, &desc, weights, weights_len(&CONV), NULL, 0, &plan));
  for (long round = 0;; round++) {
    sparkle_status status = sparkle_plan_execute(plan, input, input_len(&CONV), output, output_len(&CONV));
    if (status == SPARKLE_ERROR_ENDING && round > 1) return NULL;
    OK(status);
    if (round == 1) pthread_barrier_wait(&computing);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: exit DEVICE");
  CHECK(pthread_barrier_init(&computing, NULL, 2) == 0, "barrier");
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, work, argv[1]) == 0, "thread");
  pthread_barrier_wait(&computing);
  printf("leaving\n");
  return 0;
}
