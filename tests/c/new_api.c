/* The sparkle_ interface on the device that the first argument names: results, handles and timing. */
#include "new_api.h"

static const struct conv CONVS[] = {
    {1, 3, 8, 11, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1},  {2, 4, 9, 7, 6, 3, 2, 2, 1, 0, 1, 1, 2, 2},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1},   {3, 5, 6, 6, 7, 1, 1, 1, 1, 0, 0, 1, 1, 1},
    {1, 6, 13, 10, 6, 5, 5, 3, 2, 2, 2, 1, 1, 6}, {1, 17, 20, 20, 33, 3, 3, 1, 1, 1, 1, 1, 1, 1},
};

static void devices(void) {
  size_t count = 0;
  OK(sparkle_device_count(&count));
  CHECK(count >= 1, "the CPU is missing");
  for (size_t i = 0; i < count; i++) {
    sparkle_device_info info;
    memset(&info, 0x55, sizeof info);
    info.size = sizeof info;
    OK(sparkle_device_describe(i, &info));
    CHECK(memchr(info.id, 0, sizeof info.id) && memchr(info.name, 0, sizeof info.name), "a string without NUL");
    CHECK(info.kind == (i == 0 ? SPARKLE_DEVICE_KIND_CPU : SPARKLE_DEVICE_KIND_GL), "kind %d", info.kind);
    CHECK((info.usable == 1) == (info.id[0] != 0) && (info.usable == 1) == (info.reason[0] == 0),
          "device %zu: usable %d, id \"%s\", reason \"%s\"", i, info.usable, info.id, info.reason);
    CHECK(info.size == sizeof info && (info.software == 0 || info.software == 1), "size and software");
    if (i == 0) CHECK(info.usable && !info.software && strcmp(info.id, "cpu") == 0, "id \"%s\"", info.id);
    if (info.usable) {
      sparkle_device *device = NULL;
      OK(sparkle_device_open(info.id, &device));
      OK(sparkle_device_close(device));
      CHECK(sparkle_device_close(device) == SPARKLE_ERROR_INVALID_HANDLE, "closed twice");
    }
  }
  printf("devices\n");
}

/* Checks that the thread's last timing names this device. */
static void timing(const char *device) {
  sparkle_timing timing;
  memset(&timing, 0x55, sizeof timing);
  timing.size = sizeof timing;
  OK(sparkle_last_timing(&timing));
  CHECK(strcmp(device, "auto") == 0 || strcmp(timing.device, device) == 0, "on %s", timing.device);
  CHECK(timing.kernel[0] && timing.wall_ms > 0 && timing.kernel_ms >= 0 && timing.kernel_ms <= timing.wall_ms,
        "%s: kernel %g ms, wall %g ms", timing.kernel, timing.kernel_ms, timing.wall_ms);
  CHECK(timing.fell_back == 0 && timing.fallback[0] == 0, "%s", timing.fallback);
}

static void convolution(sparkle_device *device, const char *name, const struct conv *it, int with_bias, int relu) {
  sparkle_conv2d_desc desc = describe(it, with_bias, relu);
  int64_t p = 0, q = 0;
  OK(sparkle_conv2d_output_size(&desc, &p, &q));
  CHECK(p == conv_p(it) && q == conv_q(it), "output %d x %d", (int)p, (int)q);

  size_t input_count = input_len(it), weights_count = weights_len(it), count = output_len(it);
  float *input = integers(input_count, 1), *weights = integers(weights_count, 2);
  float *bias = with_bias ? integers((size_t)it->k, 3) : NULL;
  size_t bias_count = with_bias ? (size_t)it->k : 0;
  if (count == 1) weights[0] = input[0] = 2; /* The only output must not be zero. */
  if (count == 1 && bias) bias[0] = 1;
  float *memory = filled(count + 2, CANARY), *output = memory + 1;

  OK(sparkle_conv2d(device, &desc, input, input_count, weights, weights_count, bias, bias_count, output, count));
  check_conv("conv2d", it, input, weights, bias, relu, output);
  timing(name);

  sparkle_plan *plan = NULL;
  float *copied_weights = floats(weights_count);
  memcpy(copied_weights, weights, weights_count * sizeof(float));
  OK(sparkle_plan_create(device, &desc, copied_weights, weights_count, bias, bias_count, &plan));
  for (size_t i = 0; i < weights_count; i++) copied_weights[i] = NAN; /* The plan has its own copy. */
  for (int run = 0; run < 3; run++) {
    for (size_t i = 0; i < count; i++) output[i] = NAN;
    OK(sparkle_plan_execute(plan, input, input_count, output, count));
    check_conv("plan", it, input, weights, bias, relu, output);
    timing(name);
    input[(size_t)run % input_count] += 1;
  }
  size_t packed = 0, workspace = 0;
  OK(sparkle_plan_memory(plan, &packed, &workspace));
  CHECK(packed >= weights_count * sizeof(float) && workspace > 0, "the plan's memory");
  CHECK(sparkle_plan_memory(plan, NULL, &workspace) == SPARKLE_ERROR_NULL_POINTER, "packed is NULL");
  OK(sparkle_plan_destroy(plan));
  CHECK(sparkle_plan_memory(plan, &packed, &workspace) == SPARKLE_ERROR_INVALID_HANDLE, "memory of a destroyed plan");
  CHECK(sparkle_plan_destroy(plan) == SPARKLE_ERROR_INVALID_HANDLE, "destroyed twice");
  CHECK(sparkle_plan_execute(plan, input, input_count, output, count) == SPARKLE_ERROR_INVALID_HANDLE, "executed after its end");
  CHECK(memory[0] == CANARY && memory[count + 1] == CANARY, "written outside");
  free(input), free(weights), free(copied_weights), free(bias), free(memory);
}

static void convolutions(sparkle_device *device, const char *name) {
  int cases = 0;
  for (size_t i = 0; i < sizeof CONVS / sizeof *CONVS; i++)
    for (int flags = 0; flags < 4; flags++, cases++)
      convolution(device, name, &CONVS[i], flags & 1, flags >> 1);
  CHECK(cases == 24, "%d cases", cases);
  printf("convolutions\n");
}

static float at(const float *x, int column_major, int transposed, long ld, long i, long j) {
  long row = transposed ? j : i, column = transposed ? i : j;
  return column_major ? x[column * ld + row] : x[row * ld + column];
}

/* A product with room for any layout and gaps between rows or columns. The gaps must not change. */
static void product(sparkle_device *device, const char *name, sparkle_gemm_desc desc) {
  int by_columns = desc.layout == SPARKLE_COL_MAJOR;
  int a_trans = desc.trans_a == SPARKLE_TRANS, b_trans = desc.trans_b == SPARKLE_TRANS;
  size_t side = 40, count = side * side;
  desc.lda = desc.ldb = desc.ldc = (int64_t)side - 2;
  float *a = integers(count, 4), *b = integers(count, 5), *old = integers(count, 6), *c = floats(count);
  if (desc.beta == 0)
    for (size_t i = 0; i < count; i++) old[i] = i % 2 ? NAN : INFINITY; /* Must not be read. */
  memcpy(c, old, count * sizeof *c);
  int reads = desc.k > 0 && desc.alpha != 0 && desc.m > 0 && desc.n > 0;
  size_t ab_count = reads ? count : 0;
  OK(sparkle_sgemm(device, &desc, reads ? a : NULL, ab_count, reads ? b : NULL, ab_count, c, count));
  for (size_t index = 0; index < count; index++) {
    long line = (long)index / (long)desc.ldc, place = (long)index % (long)desc.ldc;
    long i = by_columns ? place : line, j = by_columns ? line : place;
    if (i >= desc.m || j >= desc.n) {
      CHECK(memcmp(&c[index], &old[index], sizeof *c) == 0, "element %zu is not in C and was written", index);
      continue;
    }
    double sum = 0;
    for (long p = 0; desc.alpha != 0 && p < desc.k; p++)
      sum += (double)at(a, by_columns, a_trans, desc.lda, i, p) * at(b, by_columns, b_trans, desc.ldb, p, j);
    double expected = desc.alpha * sum + (desc.beta == 0 ? 0 : (double)desc.beta * old[index]);
    CHECK(c[index] == expected, "C(%ld, %ld) is %g, expected %g", i, j, c[index], expected);
  }
  timing(name);
  free(a), free(b), free(old), free(c);
}

static sparkle_gemm_desc gemm_desc(void) {
  sparkle_gemm_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.size = sizeof desc;
  desc.layout = SPARKLE_ROW_MAJOR;
  desc.trans_a = desc.trans_b = SPARKLE_NO_TRANS;
  desc.lda = desc.ldb = desc.ldc = 1;
  return desc;
}

/* One step of a blocked factorisation: subtracts the product of two blocks from the trailing block of the same matrix. */
static void blocks_of_one_matrix(sparkle_device *device, int32_t layout) {
  enum { SIDE = 24, STEP = 5, REST = SIDE - STEP };
  float *x = integers(SIDE * SIDE, 11), old[SIDE * SIDE];
  memcpy(old, x, sizeof old);
  sparkle_gemm_desc desc = gemm_desc();
  desc.layout = layout;
  desc.m = desc.n = REST, desc.k = STEP, desc.alpha = -1, desc.beta = 1;
  desc.lda = desc.ldb = desc.ldc = SIDE;
  /* Offsets of the block below the diagonal block, of the block to its right, and of the trailing block. */
  size_t below = layout == SPARKLE_ROW_MAJOR ? STEP * SIDE : STEP, right = STEP * SIDE + STEP - below;
  size_t rest = STEP * SIDE + STEP, end = SIDE * SIDE;
  OK(sparkle_sgemm(device, &desc, x + below, end - below, x + right, end - right, x + rest, end - rest));
  int by_columns = layout == SPARKLE_COL_MAJOR;
  for (long i = 0; i < SIDE; i++)
    for (long j = 0; j < SIDE; j++) {
      double expected = at(old, by_columns, 0, SIDE, i, j);
      for (long p = 0; p < STEP && i >= STEP && j >= STEP; p++)
        expected -= (double)at(old, by_columns, 0, SIDE, i, p) * at(old, by_columns, 0, SIDE, p, j);
      CHECK(at(x, by_columns, 0, SIDE, i, j) == expected, "element (%ld, %ld)", i, j);
    }
  free(x);
}

static void products(sparkle_device *device, const char *name) {
  static const int64_t SIZES[][3] = {{1, 1, 1}, {3, 5, 7}, {17, 9, 33}, {38, 38, 38}, {4, 6, 0}, {0, 5, 3}, {5, 0, 3}};
  static const float FACTORS[][2] = {{1, 0}, {2, 1}, {-1, -2}, {0, 3}, {0, 0}};
  int cases = 0;
  for (size_t size = 0; size < 7; size++)
    for (size_t factor = 0; factor < 5; factor++)
      for (int kind = 0; kind < 8; kind++, cases++) {
        sparkle_gemm_desc desc = gemm_desc();
        desc.layout = kind & 1 ? SPARKLE_ROW_MAJOR : SPARKLE_COL_MAJOR;
        desc.trans_a = kind & 2 ? SPARKLE_TRANS : SPARKLE_NO_TRANS;
        desc.trans_b = kind & 4 ? SPARKLE_TRANS : SPARKLE_NO_TRANS;
        desc.m = SIZES[size][0], desc.n = SIZES[size][1], desc.k = SIZES[size][2];
        desc.alpha = FACTORS[factor][0], desc.beta = FACTORS[factor][1];
        product(device, name, desc);
      }
  CHECK(cases == 280, "%d cases", cases);
  /* An empty product without buffers. */
  sparkle_gemm_desc empty = gemm_desc();
  OK(sparkle_sgemm(device, &empty, NULL, 0, NULL, 0, NULL, 0));
  blocks_of_one_matrix(device, SPARKLE_ROW_MAJOR);
  blocks_of_one_matrix(device, SPARKLE_COL_MAJOR);
  printf("products\n");
}

/* A plan still works after its device is closed. */
static void closed_device(const char *name) {
  const struct conv *it = &CONVS[1];
  sparkle_conv2d_desc desc = describe(it, 0, 1);
  float *input = integers(input_len(it), 9), *weights = integers(weights_len(it), 10);
  float *output = filled(output_len(it), NAN);
  sparkle_device *device = NULL;
  sparkle_plan *plan = NULL;
  OK(sparkle_device_open(name, &device));
  OK(sparkle_plan_create(device, &desc, weights, weights_len(it), NULL, 0, &plan));
  OK(sparkle_device_close(device));
  OK(sparkle_plan_execute(plan, input, input_len(it), output, output_len(it)));
  check_conv("a plan of a closed device", it, input, weights, NULL, 1, output);
  CHECK(sparkle_device_close((sparkle_device *)(void *)plan) == SPARKLE_ERROR_INVALID_HANDLE, "a plan was closed as a device");
  CHECK(strstr(sparkle_last_error(), "not a device"), "%s", sparkle_last_error());
  OK(sparkle_plan_destroy(plan));
  free(input), free(weights), free(output);
  printf("closed device\n");
}

/* After sparkle_finalize all handles are invalid, and the library can be used again. */
static void finalize(const char *name) {
  const struct conv *it = &CONVS[0];
  sparkle_conv2d_desc desc = describe(it, 0, 0);
  float *input = integers(input_len(it), 7), *weights = integers(weights_len(it), 8);
  size_t count = output_len(it);
  for (int round = 0; round < 3; round++) {
    sparkle_device *device = NULL;
    sparkle_plan *plan = NULL;
    OK(sparkle_device_open(name, &device));
    OK(sparkle_plan_create(device, &desc, weights, weights_len(it), NULL, 0, &plan));
    float *output = filled(count, NAN);
    OK(sparkle_plan_execute(plan, input, input_len(it), output, count));
    check_conv("before finalize", it, input, weights, NULL, 0, output);
    for (size_t i = 0; i < count; i++) output[i] = CANARY;
    OK(sparkle_finalize());
    OK(sparkle_finalize());
    CHECK(sparkle_plan_execute(plan, input, input_len(it), output, count) == SPARKLE_ERROR_INVALID_HANDLE, "plan");
    CHECK(strstr(sparkle_last_error(), "no longer exists"), "%s", sparkle_last_error());
    CHECK(sparkle_conv2d(device, &desc, input, input_len(it), weights, weights_len(it), NULL, 0, output, count) ==
              SPARKLE_ERROR_INVALID_HANDLE, "device");
    check_untouched("output", output, count);
    /* NULL means auto, also after sparkle_finalize. */
    OK(sparkle_conv2d(NULL, &desc, input, input_len(it), weights, weights_len(it), NULL, 0, output, count));
    check_conv("after finalize", it, input, weights, NULL, 0, output);
    free(output);
  }
  free(input), free(weights);
  printf("finalize\n");
}

/* What a convolution would take on each device. */
static void predictions(const char *gpu) {
  sparkle_conv2d_desc desc;
  desc.size = sizeof desc;
  OK(sparkle_conv2d_desc_init(&desc));
  desc.n = 2, desc.c = 8, desc.h = 16, desc.w = 16, desc.k = 8;
  size_t count = 0;
  sparkle_prediction all[3];
  memset(all, 0x55, sizeof all);
  all[0].size = sizeof all[0];
  sparkle_device *device = NULL;
  OK(sparkle_device_open("cpu", &device));
  OK(sparkle_device_predict(device, &desc, all, 3, &count));
  CHECK(count == 1 && strcmp(all[0].device, "cpu") == 0, "%zu predictions, %s", count, all[0].device);
  CHECK(all[0].predicted_ms > 0 && all[0].predicted_ms < 1e3, "predicted %g ms", all[0].predicted_ms);
  CHECK(all[0].measured_ms == -1 && all[0].is_next == 1 && all[0].reserved == 0 && !*all[0].reason, "a named device");
  CHECK(all[1].size != sizeof all[1], "more than was predicted was written");
  OK(sparkle_device_close(device));
  /* auto has the CPU at least; one device gets the next call. */
  OK(sparkle_device_predict(NULL, &desc, NULL, 0, &count));
  CHECK(count >= 1, "%zu predictions", count);
  desc.k = -1;
  CHECK(sparkle_device_predict(NULL, &desc, NULL, 0, &count) == SPARKLE_ERROR_INVALID_ARGUMENT, "no filters");
  CHECK(strstr(sparkle_last_error(), "k is -1"), "%s", sparkle_last_error());
  desc.k = 8;
  if (gpu) {
    char selector[64];
    snprintf(selector, sizeof selector, "multi:%s,cpu", gpu);
    OK(sparkle_device_open(selector, &device));
    OK(sparkle_device_predict(device, &desc, all, 3, &count));
    CHECK(count == 2, "%zu predictions", count);
    CHECK(strcmp(all[0].device, gpu) == 0 && strcmp(all[1].device, "cpu") == 0, "%s, %s", all[0].device, all[1].device);
    for (int i = 0; i < 2; i++)
      CHECK(all[i].size == sizeof all[i] && all[i].is_next == 1 && all[i].predicted_ms > 0, "prediction %d", i);
    OK(sparkle_device_close(device));
  }
  printf("predictions\n");
}

/* Two images of three for the GPU, one for the CPU, by weights; then who did what. */
static void shares(const char *gpu) {
  char selector[64];
  snprintf(selector, sizeof selector, "multi:%s=2,cpu", gpu);
  sparkle_device *device = NULL;
  OK(sparkle_device_open(selector, &device));
  sparkle_conv2d_desc desc;
  desc.size = sizeof desc;
  OK(sparkle_conv2d_desc_init(&desc));
  desc.n = 3, desc.h = 2, desc.w = 2;
  const float input[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, weight = 3;
  float output[12] = {0};
  OK(sparkle_conv2d(device, &desc, input, 12, &weight, 1, NULL, 0, output, 12));
  for (int i = 0; i < 12; i++) CHECK(output[i] == 3 * input[i], "output %d is %g", i, output[i]);
  size_t count = 0;
  OK(sparkle_last_shares(NULL, 0, &count));
  CHECK(count == 2, "%zu shares", count);
  sparkle_share all[3];
  memset(all, 0x55, sizeof all);
  all[0].size = sizeof all[0];
  OK(sparkle_last_shares(all, 1, &count));
  CHECK(count == 2 && all[1].size != sizeof all[1], "more than the capacity was written");
  OK(sparkle_last_shares(all, 3, &count));
  CHECK(strcmp(all[0].device, gpu) == 0 && strcmp(all[1].device, "cpu") == 0, "%s, %s", all[0].device, all[1].device);
  CHECK(all[0].first == 0 && all[0].count == 2 && all[1].first == 2 && all[1].count == 1, "the images");
  for (int i = 0; i < 2; i++) {
    CHECK(all[i].size == sizeof all[i] && all[i].dimension == SPARKLE_DIMENSION_IMAGES, "share %d", i);
    CHECK(all[i].measured_ms > 0 && all[i].predicted_ms == 0 && all[i].reserved == 0, "share %d", i);
  }
  all[0].size = 3;
  CHECK(sparkle_last_shares(all, 3, &count) == SPARKLE_ERROR_INVALID_ARGUMENT, "a size that is no size");
  OK(sparkle_device_close(device));
  const char *bad[] = {"multi:", "multi:cpu,cpu", "multi:cpu=0", "multi:cpu=x", "multi:cpu,abacus", "multi:auto", "multi:multi"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK(sparkle_device_open(bad[i], &device) == SPARKLE_ERROR_INVALID_ARGUMENT, "%s", bad[i]);
  printf("shares\n");
}

static void threads(void) {
  int before = sparkle_get_num_threads();
  CHECK(before >= 1, "%d", before);
  OK(sparkle_set_num_threads(3));
  CHECK(sparkle_get_num_threads() == 3, "%d", sparkle_get_num_threads());
  CHECK(sparkle_set_num_threads(0) == SPARKLE_ERROR_INVALID_ARGUMENT && sparkle_get_num_threads() == 3, "0 threads");
  OK(sparkle_set_num_threads(before));
  printf("threads\n");
}

/* The header's initialisers: the struct's own size, then zeros; a product that can be computed. */
static void initialisers(void) {
#define PLAIN(name)                                                                                         \
  do {                                                                                                      \
    sparkle_##name it, zeros;                                                                               \
    memset(&it, 0x55, sizeof it), memset(&zeros, 0, sizeof zeros);                                          \
    zeros.size = sizeof zeros;                                                                              \
    OK(sparkle_##name##_init(&it));                                                                         \
    CHECK(memcmp(&it, &zeros, sizeof it) == 0, "sparkle_" #name);                                           \
    CHECK(sparkle_##name##_init(NULL) == SPARKLE_ERROR_NULL_POINTER, "sparkle_" #name);                     \
  } while (0)
  PLAIN(device_info);
  PLAIN(architecture);
  PLAIN(shader_options);
  PLAIN(tuning_record);
  PLAIN(pipeline_options);
  PLAIN(pipeline_stats);
  PLAIN(loops);
  PLAIN(loop_plan);
  PLAIN(kernel_info);
  PLAIN(argument_info);
  PLAIN(kernel_arg);
  PLAIN(timing);
  PLAIN(share);
  PLAIN(prediction);
  PLAIN(transport);
  PLAIN(group_part);
  PLAIN(group_gemm_part);
#undef PLAIN
  sparkle_gemm_desc desc;
  OK(sparkle_gemm_desc_init(&desc));
  const float a = 3, b = 5;
  float c = 7;
  OK(sparkle_sgemm(NULL, &desc, &a, 1, &b, 1, &c, 1));
  CHECK(desc.size == sizeof desc && c == 15, "%g", (double)c);
  CHECK(sparkle_gemm_desc_init(NULL) == SPARKLE_ERROR_NULL_POINTER, "sparkle_gemm_desc");
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: new_api DEVICE");
  CHECK(sparkle_last_error()[0] == 0, "%s", sparkle_last_error());
  sparkle_timing none;
  none.size = sizeof none;
  CHECK(sparkle_last_timing(&none) == SPARKLE_ERROR_INVALID_ARGUMENT, "a timing before any call");
  devices();
  initialisers();
  const char *selector = strcmp(argv[1], "NULL") ? argv[1] : NULL, *name = selector ? selector : "auto";
  sparkle_device *device = NULL;
  OK(sparkle_device_open(selector, &device));
  convolutions(device, name);
  products(device, name);
  OK(sparkle_device_close(device));
  closed_device(name);
  finalize(name);
  threads();
  const char *gpu = strncmp(name, "gl:", 3) == 0 ? name : NULL;
  if (gpu) shares(gpu);
  predictions(gpu);
  return 0;
}
