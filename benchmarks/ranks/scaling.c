/* Weak scaling over ranks: each rank has the rows (or images) of one layer of suite.csv, and the whole problem has as many times
 * the rows. Compares a run over the ranks with the same processes that convolve their own rows alone, without communication.
 *
 *   mpicc -O2 -Iinclude -Impi benchmarks/ranks/scaling.c mpi/sparkle_mpi.c -Ltarget/release -lsparkle -lm -o scaling
 *   SPARKLE_NUM_THREADS=1 mpirun -n 2 ./scaling benchmarks/suite.csv [rows|batch] [runs]
 *
 * Both kinds of runs take turns, each after a barrier, and the slowest rank counts. Prints the medians. */
#include "sparkle_mpi.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, ranks;

static void require(int status, const char *what) {
  if (status == 0) return;
  fprintf(stderr, "rank %d: %s: %s\n", rank, what, sparkle_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

static int ascending(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static float *random_numbers(size_t len) {
  float *values = malloc((len + 1) * sizeof *values);
  for (size_t i = 0; i < len; i++) values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  return values;
}

/* The slowest rank's time of one call. */
static double timed(sparkle_status (*call)(void *), void *context) {
  MPI_Barrier(MPI_COMM_WORLD);
  double begin = MPI_Wtime();
  require(call(context), "a run");
  double own = MPI_Wtime() - begin, slowest;
  MPI_Allreduce(&own, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

typedef struct {
  sparkle_group_plan *shared;
  sparkle_plan *alone;
  float *input, *output;
  size_t shared_in, shared_out, alone_in, alone_out;
} layer;

static sparkle_status over_ranks(void *it) {
  layer *l = it;
  return sparkle_group_plan_execute(l->shared, l->input, l->shared_in, l->output, l->shared_out);
}

static sparkle_status alone(void *it) {
  layer *l = it;
  return sparkle_plan_execute(l->alone, l->input, l->alone_in, l->output, l->alone_out);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  FILE *suite = argc > 1 ? fopen(argv[1], "r") : NULL;
  int rows = !(argc > 2 && strcmp(argv[2], "batch") == 0), runs = argc > 3 ? atoi(argv[3]) : 15;
  if (!suite || runs < 1) {
    fprintf(stderr, "scaling SUITE.csv [rows|batch] [runs]\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  sparkle_device *device;
  char selector[32];
  require(sparkle_mpi_device(MPI_COMM_WORLD, selector), "sparkle_mpi_device");
  require(sparkle_device_open(selector, &device), "sparkle_device_open");
  sparkle_group *group;
  require(sparkle_mpi_group(MPI_COMM_WORLD, device, &group), "sparkle_mpi_group");
  if (rank == 0) printf("%d ranks on %s, %s\n%-20s %10s %10s %6s\n", ranks, selector, rows ? "rows" : "batch", "layer", "alone ms", "ranks ms", "ratio");
  char line[256], name[64];
  double logs = 0, *times[2] = {malloc((size_t)runs * sizeof(double)), malloc((size_t)runs * sizeof(double))};
  int layers = 0;
  while (fgets(line, sizeof line, suite)) {
    long long n, c, h, w, k, r, stride, pad;
    if (sscanf(line, "%63[^,],%lld,%lld,%lld,%lld,%lld,%lld,%lld,%lld", name, &n, &c, &h, &w, &k, &r, &stride, &pad) != 9) continue;
    sparkle_conv2d_desc desc, own;
    require(sparkle_conv2d_desc_init(&desc), "desc");
    desc.n = n, desc.c = c, desc.h = h, desc.w = w, desc.k = k, desc.r = desc.s = r;
    desc.stride_h = desc.stride_w = stride, desc.pad_h = desc.pad_w = pad;
    own = desc;
    if (rows) desc.h *= ranks;
    else desc.n *= ranks;
    size_t weights_len = (size_t)(k * c * r * r);
    float *weights = random_numbers(weights_len);
    layer l;
    int64_t p, q;
    require(sparkle_conv2d_output_size(&own, &p, &q), "sizes");
    require(sparkle_plan_create(device, &own, weights, weights_len, NULL, 0, &l.alone), "a plan");
    require(sparkle_group_plan_create(group, &desc, rows ? SPARKLE_ROWS : SPARKLE_BATCH, 0, weights, weights_len, NULL, 0, &l.shared),
            "a plan over ranks");
    sparkle_group_part part = {.size = sizeof part};
    require(sparkle_group_plan_part(l.shared, -1, &part), "a part");
    l.shared_in = part.input_len, l.shared_out = part.output_len;
    l.alone_in = (size_t)(n * c * h * w), l.alone_out = (size_t)(n * k * p * q);
    l.input = random_numbers(l.alone_in > l.shared_in ? l.alone_in : l.shared_in);
    l.output = random_numbers(l.alone_out > l.shared_out ? l.alone_out : l.shared_out);
    for (int run = -3; run < runs; run++) {
      double once = timed(alone, &l), together = timed(over_ranks, &l);
      if (run >= 0) times[0][run] = once, times[1][run] = together;
    }
    for (int i = 0; i < 2; i++) qsort(times[i], (size_t)runs, sizeof(double), ascending);
    /* The parts of ranks differ by a row at most; their work is what counts. */
    double work = (double)l.shared_out / (double)l.alone_out, most;
    MPI_Allreduce(&work, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    double medians[2] = {times[0][runs / 2] * most, times[1][runs / 2]}, ratio = medians[0] / medians[1];
    if (rank == 0) printf("%-20s %10.3f %10.3f %6.3f\n", name, 1e3 * medians[0], 1e3 * medians[1], ratio);
    logs += log(ratio), layers++;
    sparkle_plan_destroy(l.alone), sparkle_group_plan_destroy(l.shared);
    free(weights), free(l.input), free(l.output);
  }
  if (rank == 0) printf("%-20s %28.3f\n", "geometric mean", exp(logs / layers));
  sparkle_group_destroy(group);
  sparkle_device_close(device);
  MPI_Finalize();
  return 0;
}
