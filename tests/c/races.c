/* One thread destroys handles while others use them. A call returns correct results or SPARKLE_ERROR_INVALID_HANDLE. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>

enum { THREADS = 8, ENDS = 300 };

static const struct conv CONV = {1, 4, 10, 9, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1};

static struct {
  pthread_mutex_t lock;
  sparkle_plan *plan; /* A thread that finds it NULL creates another. */
  int done;
  long verified, gone;
  float *input, *weights;
} shared = {PTHREAD_MUTEX_INITIALIZER, NULL, 0, 0, 0, NULL, NULL};

static sparkle_plan *current(int *done) {
  pthread_mutex_lock(&shared.lock);
  if (!shared.plan) {
    sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
    OK(sparkle_plan_create(NULL, &desc, shared.weights, weights_len(&CONV), NULL, 0, &shared.plan));
  }
  sparkle_plan *plan = shared.plan;
  *done = shared.done;
  pthread_mutex_unlock(&shared.lock);
  return plan;
}

static void *work(void *unused) {
  (void)unused;
  size_t count = output_len(&CONV);
  float *output = floats(count);
  long verified = 0, gone = 0;
  for (int done = 0; !done;) {
    sparkle_plan *plan = current(&done);
    for (size_t i = 0; i < count; i++) output[i] = CANARY;
    sparkle_status status = sparkle_plan_execute(plan, shared.input, input_len(&CONV), output, count);
    if (status == SPARKLE_OK) {
      check_conv("races", &CONV, shared.input, shared.weights, NULL, 0, output);
      verified++;
      continue;
    }
    CHECK(status == SPARKLE_ERROR_INVALID_HANDLE, "%s", sparkle_last_error());
    check_untouched("races", output, count);
    gone++;
    pthread_mutex_lock(&shared.lock);
    if (shared.plan == plan) shared.plan = NULL;
    pthread_mutex_unlock(&shared.lock);
  }
  pthread_mutex_lock(&shared.lock);
  shared.verified += verified, shared.gone += gone;
  pthread_mutex_unlock(&shared.lock);
  free(output);
  return NULL;
}

int main(void) {
  shared.input = integers(input_len(&CONV), 1), shared.weights = integers(weights_len(&CONV), 2);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0, "thread");
  for (int end = 0; end < ENDS; end++) {
    int done;
    sparkle_plan *plan = current(&done);
    if (end % 2) OK(sparkle_finalize());
    else sparkle_plan_destroy(plan); /* The plan may be gone already. */
  }
  pthread_mutex_lock(&shared.lock);
  shared.done = 1;
  pthread_mutex_unlock(&shared.lock);
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "join");
  CHECK(shared.verified > 0, "no call succeeded");
  printf("races\n");
  return 0;
}
