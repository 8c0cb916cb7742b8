/* Groups over the ranks of MPI: exact convolutions for every distribution, a product, errors on one rank, a part of the ranks, two
 * groups at once. Prints one line on rank 0, and aborts at the first fault. */
#include "sparkle_mpi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, ranks;

#define CHECK(condition)                                                                              \
  do {                                                                                                \
    if (!(condition)) {                                                                               \
      fprintf(stderr, "rank %d, line %d: %s; %s\n", rank, __LINE__, #condition, sparkle_last_error()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                                                                   \
    }                                                                                                 \
  } while (0)

static unsigned long long seed;
static int next(int low, int high) {
  seed = seed * 6364136223846793005ull + 1442695040888963407ull;
  return low + (int)((seed >> 33) % (unsigned long long)(high - low + 1));
}

/* The same small integers on all ranks. */
static float *integers(size_t len) {
  float *values = malloc((len + 1) * sizeof *values);
  for (size_t i = 0; i < len; i++) values[i] = (float)next(-3, 3);
  return values;
}

/* Copies the part of a rank out of a whole tensor. */
static float *part_of(const float *whole, const int64_t sizes[4], int distribution, int64_t first, int64_t count) {
  int64_t from[4] = {0, 0, 0, 0}, to[4] = {sizes[0], sizes[1], sizes[2], sizes[3]};
  int dimension = distribution == SPARKLE_BATCH ? 0 : distribution == SPARKLE_CHANNELS ? 1 : 2;
  from[dimension] = first;
  to[dimension] = first + count;
  size_t len = 0, room = 1;
  for (int i = 0; i < 4; i++) room *= (size_t)(to[i] - from[i]);
  float *part = malloc((room + 1) * sizeof *part);
  for (int64_t n = from[0]; n < to[0]; n++)
    for (int64_t c = from[1]; c < to[1]; c++)
      for (int64_t h = from[2]; h < to[2]; h++) {
        memcpy(part + len, whole + ((n * sizes[1] + c) * sizes[2] + h) * sizes[3], (size_t)sizes[3] * sizeof *part);
        len += (size_t)sizes[3];
      }
  return part;
}

static sparkle_device *cpu;

/* One random convolution, exact on integers: the ranks against sparkle_conv2d on each of them. */
static void convolve(sparkle_group *group, int distribution, int bad_rank) {
  sparkle_conv2d_desc desc;
  int own, count;
  CHECK(sparkle_group_rank(group, &own, &count) == SPARKLE_OK);
  CHECK(sparkle_conv2d_desc_init(&desc) == SPARKLE_OK);
  desc.groups = next(1, 3) == 1 ? 2 : 1;
  desc.n = next(1, 5), desc.c = desc.groups * next(1, 4), desc.h = next(5, 40), desc.w = next(3, 9);
  desc.k = desc.groups * next(1, 6), desc.r = next(1, 5), desc.s = next(1, 3);
  desc.stride_h = next(1, 3), desc.pad_h = next(0, 2), desc.bias = next(0, 1);
  desc.algorithm = SPARKLE_ALGORITHM_DIRECT;
  int64_t p, q;
  CHECK(sparkle_conv2d_output_size(&desc, &p, &q) == SPARKLE_OK);
  int64_t in[4] = {desc.n, desc.c, desc.h, desc.w}, out[4] = {desc.n, desc.k, p, q};
  size_t in_len = (size_t)(desc.n * desc.c * desc.h * desc.w), out_len = (size_t)(desc.n * desc.k * p * q);
  size_t weights_len = (size_t)(desc.k * (desc.c / desc.groups) * desc.r * desc.s);
  size_t bias_len = desc.bias ? (size_t)desc.k : 0;
  float *input = integers(in_len), *weights = integers(weights_len), *bias = desc.bias ? integers(bias_len) : NULL;
  float *output = malloc((out_len + 1) * sizeof *output);
  CHECK(sparkle_conv2d(cpu, &desc, input, in_len, weights, weights_len, bias, bias_len, output, out_len) == SPARKLE_OK);

  sparkle_group_plan *plan;
  double weight = (double)next(1, 4) + own;
  /* Only rank 0 has the weights. */
  sparkle_status status = sparkle_group_plan_create(group, &desc, distribution, weight, own ? NULL : weights,
                                                    own ? 0 : weights_len, own ? NULL : bias, own ? 0 : bias_len, &plan);
  CHECK(status == SPARKLE_OK);
  sparkle_group_part part = {.size = sizeof part};
  CHECK(sparkle_group_plan_part(plan, -1, &part) == SPARKLE_OK);
  float *mine = part_of(input, in, distribution, part.input_first, part.input_count);
  float *expected = part_of(output, out, distribution, part.output_first, part.output_count);
  float *found = malloc((part.output_len + 1) * sizeof *found);
  memset(found, 0xff, part.output_len * sizeof *found);
  CHECK(sparkle_group_plan_execute(plan, mine, part.input_len, found, part.output_len) == SPARKLE_OK);
  CHECK(memcmp(found, expected, part.output_len * sizeof *found) == 0);

  /* A NULL on one rank. */
  if (bad_rank >= 0) {
    bad_rank %= count;
    const float *given = own == bad_rank ? NULL : mine;
    size_t given_len = own == bad_rank ? part.input_len + 1 : part.input_len;
    status = sparkle_group_plan_execute(plan, given, given_len, found, part.output_len);
    CHECK(status == (own == bad_rank ? SPARKLE_ERROR_INVALID_ARGUMENT : SPARKLE_ERROR_OTHER_RANK));
    CHECK(strstr(sparkle_last_error(), "input length is "));
  }
  memset(found, 0xff, part.output_len * sizeof *found);
  CHECK(sparkle_group_plan_begin(plan, mine, part.input_len) == SPARKLE_OK);
  CHECK(sparkle_group_progress(group) == SPARKLE_OK);
  CHECK(sparkle_group_plan_finish(plan, mine, part.input_len, found, part.output_len) == SPARKLE_OK);
  CHECK(memcmp(found, expected, part.output_len * sizeof *found) == 0);
  CHECK(sparkle_group_plan_destroy(plan) == SPARKLE_OK);
  free(input), free(weights), free(bias), free(output), free(mine), free(expected), free(found);
}

/* A column-major product of integers. */
static void multiply(sparkle_group *group) {
  int64_t m = next(1, 150), n = next(1, 150), k = next(1, 600);
  float *a = integers((size_t)(m * k)), *b = integers((size_t)(k * n));
  sparkle_gemm_desc desc = {.size = sizeof desc, .layout = SPARKLE_COL_MAJOR, .trans_a = SPARKLE_NO_TRANS,
                            .trans_b = SPARKLE_NO_TRANS, .m = m, .n = n, .k = k, .alpha = 1};
  sparkle_group_gemm_part part = {.size = sizeof part};
  CHECK(sparkle_group_sgemm_part(group, &desc, -1, &part) == SPARKLE_OK);
  float *mine_a = malloc((part.a_len + 1) * sizeof *a), *mine_b = malloc((part.b_len + 1) * sizeof *b);
  float *mine_c = malloc((part.c_len + 1) * sizeof *b);
  for (int64_t j = 0; j < part.a_cols; j++)
    for (int64_t i = 0; i < part.a_rows; i++) mine_a[j * part.a_rows + i] = a[(part.a_col + j) * m + part.a_row + i];
  for (int64_t j = 0; j < part.b_cols; j++)
    for (int64_t i = 0; i < part.b_rows; i++) mine_b[j * part.b_rows + i] = b[(part.b_col + j) * k + part.b_row + i];
  CHECK(sparkle_group_sgemm(group, &desc, mine_a, part.a_len, mine_b, part.b_len, mine_c, part.c_len) == SPARKLE_OK);
  for (int64_t j = 0; j < part.c_cols; j++)
    for (int64_t i = 0; i < part.c_rows; i++) {
      double sum = 0;
      for (int64_t l = 0; l < k; l++) sum += (double)a[l * m + part.c_row + i] * b[(part.c_col + j) * k + l];
      CHECK(mine_c[j * part.c_rows + i] == (float)sum);
    }
  free(a), free(b), free(mine_a), free(mine_b), free(mine_c);
}

int main(int argc, char **argv) {
  int provided;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  CHECK(sparkle_set_num_threads(1) == SPARKLE_OK);
  CHECK(sparkle_device_open("cpu", &cpu) == SPARKLE_OK);
  char selector[32];
  CHECK(sparkle_mpi_device(MPI_COMM_WORLD, selector) == MPI_SUCCESS && selector[0]);

  sparkle_group *all, *few;
  CHECK(sparkle_mpi_group(MPI_COMM_WORLD, cpu, &all) == SPARKLE_OK);
  /* The odd and the even ranks, in the other order. */
  MPI_Comm half;
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &half);
  CHECK(sparkle_mpi_group(half, cpu, &few) == SPARKLE_OK);
  seed = 1;
  for (int round = 0; round < 30; round++) convolve(all, round % 3, round % 2 ? round : -1);
  for (int round = 0; round < 5; round++) multiply(all);
  seed = 2 + (unsigned)rank % 2;
  for (int round = 0; round < 15; round++) convolve(few, round % 3, round);
  multiply(few);

  /* Runs of two groups under way at once, which end in the other order. */
  sparkle_conv2d_desc desc;
  CHECK(sparkle_conv2d_desc_init(&desc) == SPARKLE_OK);
  desc.h = 40, desc.w = 4, desc.r = 3, desc.pad_h = 1;
  float ones[160], weights[3] = {1, 1, 1}, found[2][160];
  for (int i = 0; i < 160; i++) ones[i] = 1;
  sparkle_group_plan *plans[2];
  sparkle_group_part parts[2];
  for (int i = 0; i < 2; i++) {
    parts[i].size = sizeof parts[i];
    CHECK(sparkle_group_plan_create(i ? few : all, &desc, SPARKLE_ROWS, 0, weights, 3, NULL, 0, &plans[i]) == SPARKLE_OK);
    CHECK(sparkle_group_plan_part(plans[i], -1, &parts[i]) == SPARKLE_OK);
    CHECK(sparkle_group_plan_begin(plans[i], ones, parts[i].input_len) == SPARKLE_OK);
  }
  for (int i = 1; i >= 0; i--) {
    CHECK(sparkle_group_plan_finish(plans[i], ones, parts[i].input_len, found[i], parts[i].output_len) == SPARKLE_OK);
    for (size_t j = 0; j < parts[i].output_len; j++) {
      int64_t row = parts[i].output_first + (int64_t)j / 4;
      CHECK(found[i][j] == (row == 0 || row == 39 ? 2 : 3));
    }
    CHECK(sparkle_group_plan_destroy(plans[i]) == SPARKLE_OK);
  }

  /* A communicator is duplicated once, so many groups of it need no new one. More ranks than cores take long for each. */
  int many = ranks > 2 ? 20 : 3000;
  for (int i = 0; i < many; i++) {
    sparkle_group *again;
    CHECK(sparkle_mpi_group(half, cpu, &again) == SPARKLE_OK);
    CHECK(sparkle_group_destroy(again) == SPARKLE_OK);
  }
  CHECK(sparkle_group_destroy(few) == SPARKLE_OK && sparkle_group_destroy(all) == SPARKLE_OK);
  MPI_Comm_free(&half);
  CHECK(sparkle_device_close(cpu) == SPARKLE_OK);
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == 0) printf("%d ranks: every output is exact\n", ranks);
  MPI_Finalize();
  return 0;
}
