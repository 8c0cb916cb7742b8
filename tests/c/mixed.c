/* The reference interface and the new one on one device, from several threads, while contexts and programs are created and
 * deleted. Every result is correct. On some drivers a context loses its current program when another one deletes a program
 * (src/gl/forgotten.rs). */
#define _POSIX_C_SOURCE 200809L
#include <sparkle_reference.h>

#include "new_api.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 3, STEPS = 2500 };

static struct conv shape = {1, 1, 8, 8, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1};
static float *input, *weights;
static atomic_long verified;

/* Makes one call of the reference interface and checks every output. */
static void reference(const char *what) {
  float *output = filled(output_len(&shape), CANARY);
  float time = gpu_execute_conv2d_fortran(input, weights, output, 1, 1, 8, 8, 1, 3, 1, 1, 8, 8);
  CHECK(time >= 0, "%s: %s", what, sparkle_last_error());
  check_conv(what, &shape, input, weights, NULL, 0, output);
  free(output);
  verified++;
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
  verified++;
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

/* Releases this thread's program while another thread uses it. The program is deleted when that thread switches to the next one.
 * This thread's context then frees it and, on some drivers, loses its current program. */
static void in_turn(void) {
  sparkle_device *device; /* Keeps the share group of the contexts alive. */
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
  for (int i = 0; i < 3; i++) reference("after the old program was deleted");
  CHECK(pthread_join(thread, NULL) == 0, "join");
  /* The same when the end of the other thread deletes the program. */
  for (int i = 0; i < 3; i++) reference("after the other thread ended");
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
  CHECK(verified > THREADS * STEPS / 10, "%ld results", verified);
  printf("mixed\n");
  free(input), free(weights);
  return 0;
}
