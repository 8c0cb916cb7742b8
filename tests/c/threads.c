/* 64 threads at once use a shared plan, and devices and plans of their own, while handles are created and destroyed. Every result
 * is correct. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>

enum { THREADS = 64, ROUNDS = 20 };

static const struct conv CONV = {2, 6, 12, 11, 8, 3, 3, 1, 1, 1, 1, 1, 1, 2};

static struct {
  sparkle_plan *plan;
  float *input, *weights;
  pthread_barrier_t start;
} shared;

static void *work(void *argument) {
  long thread = (long)(size_t)argument;
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  size_t count = output_len(&CONV), weights_count = weights_len(&CONV);
  float *own_weights = integers(weights_count, 100 + (unsigned)thread), *output = filled(count, NAN);
  pthread_barrier_wait(&shared.start);
  for (int round = 0; round < ROUNDS; round++) {
    for (size_t i = 0; i < count; i++) output[i] = NAN;
    OK(sparkle_plan_execute(shared.plan, shared.input, input_len(&CONV), output, count));
    check_conv("the shared plan", &CONV, shared.input, shared.weights, NULL, 0, output);

    sparkle_device *device = NULL;
    sparkle_plan *plan = NULL;
    OK(sparkle_device_open("cpu", &device));
    OK(sparkle_plan_create(device, &desc, own_weights, weights_count, NULL, 0, &plan));
    OK(sparkle_plan_execute(plan, shared.input, input_len(&CONV), output, count));
    check_conv("the thread's own plan", &CONV, shared.input, own_weights, NULL, 0, output);
    OK(sparkle_plan_destroy(plan));
    OK(sparkle_device_close(device));

    /* Each thread has its own last error. */
    char message[64];
    snprintf(message, sizeof message, "thread %ld round %d", thread, round);
    CHECK(sparkle_device_open(message, &device) == SPARKLE_ERROR_INVALID_ARGUMENT, "opened");
    CHECK(strstr(sparkle_last_error(), message), "%s, expected %s", sparkle_last_error(), message);
  }
  free(own_weights), free(output);
  return NULL;
}

int main(void) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  shared.input = integers(input_len(&CONV), 1), shared.weights = integers(weights_len(&CONV), 2);
  OK(sparkle_plan_create(NULL, &desc, shared.weights, weights_len(&CONV), NULL, 0, &shared.plan));
  CHECK(pthread_barrier_init(&shared.start, NULL, THREADS) == 0, "barrier");
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "thread");
  for (size_t i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "join");
  OK(sparkle_finalize());
  free(shared.input), free(shared.weights);
  printf("%d threads\n", THREADS);
  return 0;
}
