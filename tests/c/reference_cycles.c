/* The reference interface is initialised and cleaned up 100 times, then used by 64 threads at once. Results are correct, and no
 * descriptors or threads leak. */
#include <dirent.h>
#include <pthread.h>

#include "reference.h"

enum { CYCLES = 100, THREADS = 64, CALLS = 3 };

static struct conv shape;
static float *input, *weights;

/* Makes one call and checks every output. */
static void convolve(const char *what) {
  float *output = filled(output_len(&shape), CANARY);
  float time = gpu_execute_conv2d_fortran(input, weights, output, NUMBERS(&shape));
  CHECK(time >= 0, "%s: %s", what, sparkle_last_error());
  check_conv(what, &shape, input, weights, NULL, 0, output);
  free(output);
}

/* The number of entries of a directory. */
static int entries(const char *path) {
  DIR *folder = opendir(path);
  CHECK(folder, "%s", path);
  int count = 0;
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static void cycles(int count) {
  for (int i = 0; i < count; i++) {
    CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
    CHECK(gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
    convolve("a cycle");
    gpu_cleanup_opengl();
    CHECK(gpu_is_initialized() == 0 && gpu_get_compute_program() == 0, "cycle %d", i);
  }
}

static void *thread(void *unused) {
  (void)unused;
  for (int i = 0; i < CALLS; i++) convolve("one of many threads");
  return NULL;
}

static void many_threads(void) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, thread, NULL) == 0, "thread %d", i);
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "thread %d", i);
  gpu_cleanup_opengl();
}

int main(void) {
  shape = square(2, 3, 7, 9, 4, 3, 2, 1);
  input = integers(input_len(&shape), 1), weights = integers(weights_len(&shape), 2);

  cycles(5); /* Drivers and libraries stay loaded. */
  int descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  cycles(CYCLES);
  CHECK(entries("/proc/self/fd") == descriptors, "%d descriptors, now %d", descriptors, entries("/proc/self/fd"));
  CHECK(entries("/proc/self/task") == threads, "%d threads, now %d", threads, entries("/proc/self/task"));
  printf("cycles\n");

  many_threads();
  CHECK(entries("/proc/self/fd") == descriptors, "%d descriptors, now %d", descriptors, entries("/proc/self/fd"));
  CHECK(entries("/proc/self/task") == threads, "%d threads, now %d", threads, entries("/proc/self/task"));
  printf("threads\n");
  free(input), free(weights);
  return 0;
}
