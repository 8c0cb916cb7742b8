/* The reference interface and the new one on one device, from several threads, with contexts and programs that come and go: every
 * result is right. Some drivers' contexts forget what they run when another one deletes a program (src/gl/forgotten.rs). */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 3, STEPS = 2500 };

static struct conv shape = {1, 1, 8, 8, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1};
static float *input, *weights;
static atomic_long right;

/* One call of the reference interface, and every output of it. */
static void reference(const char *what) {
  float *output = filled(output_len(&shape), CANARY);
  float time = gpu_execute_conv2d_fortran(input, weights, output, 1, 1, 8, 8, 1, 3, 1, 1, 8, 8);
  CHECK(time >= 0, "%s: %s", what, sparkle_last_error());
  check_conv(what, &shape, input, weights, NULL, 0, output);
  free(output);
  right++;
}

static void open_and_close(void) {
  sparkle_conv2d_desc desc = describe(&shape, 0, 0);
  float *output = filled(output_len(&shape), CANARY);
  sparkle_device *device;
  OK(sparkle_device_open("gl:0", &device));
  OK(sparkle_conv2d(device, &desc, input, input_len(&shape), weights, weights_len(&shape), NULL, 0, output,
                    output_len(&shape)));
  OK(sparkle_device_close(device));
  check_conv("between opening and closing", &shape, input, weights, NULL, 0, output);
  free(output);
  right++;
}

static pthread_barrier_t turn;

static void *another(void *unused) {
  (void)unused;
  for (int i = 0; i < 2; i++) {
    pthread_barrier_wait(&turn);
    reference("the other thread");
    pthread_barrier_wait(&turn);
  }
  return NULL;
}

static void *clean_up(void *unused) {
  (void)unused;
  gpu_cleanup_opengl();
  return NULL;
}

/* The program of this thread's is given up while another has it in use, and deleted when that takes the next one: from then on this
 * thread's context has something to free, and forgets what it runs as it does. */
static void in_turn(void) {
  sparkle_device *device; /* Keeps the contexts' group alive. */
  pthread_t thread, cleaner;
  OK(sparkle_device_open("gl:0", &device));
  CHECK(pthread_barrier_init(&turn, NULL, 2) == 0, "barrier");
  CHECK(pthread_create(&thread, NULL, another, NULL) == 0, "thread");
  reference("this thread");
  pthread_barrier_wait(&turn), pthread_barrier_wait(&turn);
  CHECK(pthread_create(&cleaner, NULL, clean_up, NULL) == 0, "thread");
  CHECK(pthread_join(cleaner, NULL) == 0, "join");
  reference("with a new program");
  pthread_barrier_wait(&turn), pthread_barrier_wait(&turn);
  for (int i = 0; i < 3; i++) reference("after the old one's end");
  CHECK(pthread_join(thread, NULL) == 0, "join");
  /* The same when the other thread's end deletes it. */
  for (int i = 0; i < 3; i++) reference("after the thread's end");
  gpu_cleanup_opengl();
  OK(sparkle_device_close(device));
}

static void *mix(void *seed) {
  unsigned state = (unsigned)(size_t)seed * 7919u + 1;
  for (int step = 0; step < STEPS; step++) {
    state = state * 1664525u + 1013904223u;
    unsigned what = (state >> 16) % 84;
    if (what < 12) reference("a mix of calls");
    else if (what == 12) gpu_cleanup_opengl();
    else if (what < 19) open_and_close();
  }
  return NULL;
}

int main(void) {
  input = integers(input_len(&shape), 1), weights = integers(weights_len(&shape), 2);
  for (int round = 0; round < 3; round++) in_turn();
  printf("in turn\n");
  fflush(stdout);
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, mix, (void *)i) == 0, "thread");
  for (size_t i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "join");
  CHECK(right > THREADS * STEPS / 10, "%ld results", right);
  printf("mixed\n");
  free(input), free(weights);
  return 0;
}
