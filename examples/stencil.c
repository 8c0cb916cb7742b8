/* A stencil of one's own, with the blocks that sparkle_plan_loops plans for it.
 *
 * Neighbours lie up to four planes away, so the loops touch nine planes at once. These exceed the caches, and each plane
 * comes from memory nine times. Within a block of rows nine planes are small. The program prints both times, predicted and
 * measured. Arguments: rounds, planes, rows, columns.
 *
 *   cc -O3 -march=native examples/stencil.c -Iinclude -Ltarget/release -lsparkle -o stencil && ./stencil */
#define _POSIX_C_SOURCE 199309L
#include <sparkle.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FAR = 4 };

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Computes the rows from `first` to before `last` of all inner planes. */
static void compute(const float *restrict u, float *restrict v, const int64_t extents[3], int64_t first, int64_t last) {
  const int64_t row = extents[2], plane = extents[1] * row;
  for (int64_t z = FAR; z < extents[0] - FAR; z++)
    for (int64_t y = first; y < last; y++) {
      const float *c = u + z * plane + y * row;
      float *to = v + z * plane + y * row;
      for (int64_t x = 1; x < row - 1; x++)
        to[x] = 0.25f * c[x] + 0.125f * (c[x - 1] + c[x + 1] + c[x - row] + c[x + row]) +
                0.0625f * (c[x - plane] + c[x + plane]) + 0.03125f * (c[x - 2 * plane] + c[x + 2 * plane]) +
                0.015625f * (c[x - 3 * plane] + c[x + 3 * plane]) + 0.0078125f * (c[x - 4 * plane] + c[x + 4 * plane]);
    }
}

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, sparkle_last_error());
  return 1;
}

int main(int argc, char **argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 7;
  sparkle_loops loops = {
      .size = sizeof loops,
      .kind = SPARKLE_LOOPS_STENCIL,
      .shape = SPARKLE_STENCIL_STAR,
      .extents = {48, 1010, 1100},
      .radius = {FAR, 1, 1},
      .flops = 20.0, /* 13 additions and 7 multiplications */
  };
  for (int i = 0; i < 3; i++)
    if (argc > i + 2) loops.extents[i] = atoll(argv[i + 2]);
  sparkle_loop_plan plan = {.size = sizeof plan};
  if (sparkle_plan_loops(NULL, &loops, &plan) != SPARKLE_OK) return failed("plan");

  const int64_t *n = loops.extents, rows = plan.block[1];
  const size_t count = (size_t)(n[0] * n[1] * n[2]);
  float *u = malloc(count * sizeof *u), *naive = calloc(count, sizeof *u), *blocked = calloc(count, sizeof *u);
  if (!u || !naive || !blocked) return fprintf(stderr, "not enough memory\n"), 1;
  for (size_t i = 0; i < count; i++) u[i] = (float)(i % 17), naive[i] = blocked[i] = 0.0f;

  double best[2] = {1e30, 1e30};
  for (int round = 0; round < rounds; round++) {
    double start = seconds();
    compute(u, naive, n, 1, n[1] - 1);
    double middle = seconds();
    for (int64_t y = 1; y < n[1] - 1; y += rows) compute(u, blocked, n, y, y + rows < n[1] - 1 ? y + rows : n[1] - 1);
    double end = seconds();
    if (middle - start < best[0]) best[0] = middle - start;
    if (end - middle < best[1]) best[1] = end - middle;
  }
  if (memcmp(naive, blocked, count * sizeof *u) != 0) return fprintf(stderr, "the results differ\n"), 1;

  const double predicted = plan.naive_seconds / plan.seconds, measured = best[0] / best[1];
  printf("blocks of %lld rows: %s\n", (long long)rows, plan.why);
  printf("predicted: %.1f ms without blocks, %.1f ms with them, %.2f times as fast\n", plan.naive_seconds * 1e3,
         plan.seconds * 1e3, predicted);
  printf("measured:  %.1f ms without blocks, %.1f ms with them, %.2f times as fast\n", best[0] * 1e3, best[1] * 1e3, measured);
  printf("same result; measured over predicted gain: %.2f\n", measured / predicted);
  free(u), free(naive), free(blocked);
  return 0;
}
