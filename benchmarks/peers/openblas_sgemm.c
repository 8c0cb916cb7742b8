/* OpenBLAS's side of `make bench-peers`: row-major sgemm. Requests and answers are those of sparkle/main.rs, `gemm` and
 * `products` only. The library is loaded from a path, so that Debian's package need not be installed. */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, MAX_CALLS = 100000 };

typedef void sgemm(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                   const float *b, int ldb, float beta, float *c, int ldc);

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int ascending(const void *one, const void *other) {
  double difference = *(const double *)one - *(const double *)other;
  return (difference > 0) - (difference < 0);
}

static float *reals(size_t count, unsigned seed) {
  float *values = malloc(count * sizeof(float));
  for (size_t i = 0; values && i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
  return values;
}

/* `count` products of m x k and k x n matrices of their own, by the timing rule of all drivers; `times` has room for MAX_CALLS.
 * Returns 0 if memory is short. */
static double gflops(sgemm *multiply, int m, int n, int k, int count, double seconds, double *times) {
  size_t in_a = (size_t)m * (size_t)k, in_b = (size_t)k * (size_t)n, in_c = (size_t)m * (size_t)n;
  float *a = reals(in_a * (size_t)count, 1), *b = reals(in_b * (size_t)count, 2), *c = reals(in_c * (size_t)count, 3);
  double rate = 0.0;
  if (a && b && c) {
    double start = 0.0;
    int calls = -2;
    while (calls < 5 || (calls < MAX_CALLS && now() - start < seconds)) {
      double before = now();
      if (calls == 0) start = before;
      for (size_t at = 0; at < (size_t)count; at++)
        multiply(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, m, n, k, 1.0f, a + at * in_a, k, b + at * in_b, n, 0.0f,
                 c + at * in_c, n);
      if (calls >= 0) times[calls] = now() - before;
      calls++;
    }
    qsort(times, (size_t)calls, sizeof *times, ascending);
    rate = 2.0 * m * n * (double)k * count / times[calls / 2] * 1e-9;
  }
  free(a);
  free(b);
  free(c);
  return rate;
}

int main(int argc, char **argv) {
  static double times[MAX_CALLS];
  void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (!library) {
    fprintf(stderr, "usage: openblas_sgemm LIBRARY: %s\n", argc == 2 ? dlerror() : "one argument");
    return 2;
  }
  /* The way of POSIX: dlsym returns functions as object pointers. */
  sgemm *multiply;
  *(void **)&multiply = dlsym(library, "cblas_sgemm");
  if (!multiply) {
    fprintf(stderr, "%s has no cblas_sgemm\n", argv[1]);
    return 2;
  }
  char request[256];
  while (fgets(request, sizeof request, stdin)) {
    int m, n, k, count = 1;
    double seconds, rate;
    int understood = sscanf(request, "products %d %d %d %d %lf", &m, &n, &k, &count, &seconds) == 5;
    if (!understood && sscanf(request, "gemm %d %lf", &n, &seconds) == 2) {
      m = k = n;
      understood = 1;
    }
    if (!understood || m < 1 || n < 1 || k < 1 || count < 1)
      printf("failed=not understood: %s", request);
    else if ((rate = gflops(multiply, m, n, k, count, seconds, times)) == 0.0)
      printf("failed=no memory\n");
    else
      printf("gemm=%.3f\n", rate);
    fflush(stdout);
  }
  return 0;
}
