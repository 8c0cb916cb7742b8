/* Floating-point environments on the device that the first argument names. Rounding, denormal flushing, traps and flags of the
 * caller vary. Results have the same bits, nothing traps, and the caller's environment is unchanged, including its flags. */
#include <sparkle_reference.h>

#include "new_api.h"

#include <stdint.h>
#include <xmmintrin.h>

/* MXCSR, and the x87 unit's environment. */
struct environment {
  uint32_t mxcsr;
  uint32_t x87[7];
};

struct mode {
  const char *name;
  uint32_t mxcsr;
  uint16_t x87;
};

static const struct mode MODES[] = {
    {"default", 0x1f80, 0x037f},
    {"up", 0x5f80, 0x0b7f},
    {"down", 0x3f80, 0x077f},
    {"towards zero, single precision", 0x7f80, 0x0c7f},
    {"denormal results are zero", 0x9f80, 0x037f},
    {"denormal operands are zero, too", 0x9fc0, 0x037f},
    {"-ffpe-trap=invalid", 0x1f00, 0x037e},
    {"-ffpe-trap=invalid,zero,overflow", 0x1900, 0x0372},
    {"all traps", 0x0000, 0x0340},
    {"all flags raised", 0x1fbf, 0x037f},
    {"up, flushing, flags raised", 0xdfff, 0x0b7f},
};
enum { COUNT = sizeof MODES / sizeof *MODES };

static struct environment now(void) {
  struct environment it;
  it.mxcsr = _mm_getcsr();
  /* fnstenv masks all exceptions, so fldenv restores the environment. */
  __asm__ volatile("fnstenv %0\n\tfldenv %0" : "=m"(it.x87));
  /* Clears the address of the last x87 instruction, which is not compared. */
  it.x87[3] = it.x87[4] = it.x87[5] = it.x87[6] = 0;
  return it;
}

static void enter(const struct mode *mode) {
  __asm__ volatile("fnclex\n\tfldcw %0" ::"m"(mode->x87));
  _mm_setcsr(mode->mxcsr);
}

static void leave(void) { enter(&MODES[0]); }

static unsigned calls;

/* Makes a call in a mode and checks that the mode is unchanged. */
#define IN(mode, call)                                                                                           \
  do {                                                                                                           \
    struct environment before_, after_;                                                                          \
    enter(mode);                                                                                                 \
    before_ = now();                                                                                             \
    call;                                                                                                        \
    after_ = now();                                                                                              \
    leave();                                                                                                     \
    CHECK(memcmp(&before_, &after_, sizeof before_) == 0, "%s: MXCSR %x, then %x; x87 %x %x, then %x %x: %s",     \
          (mode)->name, before_.mxcsr, after_.mxcsr, before_.x87[0], before_.x87[1], after_.x87[0], after_.x87[1], \
          #call);                                                                                                \
    calls++;                                                                                                     \
  } while (0)

/* The same for a call that must succeed. */
#define OK_IN(mode, call)                                                                             \
  do {                                                                                                \
    sparkle_status status_;                                                                           \
    IN(mode, status_ = (call));                                                                       \
    CHECK(status_ == SPARKLE_OK, "%s: %s, %s", (mode)->name, #call, sparkle_last_error());            \
  } while (0)

enum { N = 150 };

/* One convolution for the direct algorithm, one for which Winograd is predicted to be faster. */
static const struct conv CONVS[] = {
    {2, 12, 21, 20, 24, 3, 3, 2, 2, 1, 1, 1, 1, 1},
    {1, 32, 36, 36, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1},
};
enum { CONV_COUNT = sizeof CONVS / sizeof *CONVS };

/* Values whose sums are rounded. The last eighth is multiplied by `last`, which makes products denormal or overflow. */
static float *values(size_t count, unsigned seed, float last) {
  float *memory = floats(count);
  for (size_t i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    memory[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
    if (i >= count - count / 8) memory[i] *= last;
  }
  return memory;
}

static struct {
  float *a, *b;
  float *input[CONV_COUNT], *weights[CONV_COUNT];
} data;

/* All results of a round. */
struct results {
  float *product;
  float *call[CONV_COUNT], *plan[CONV_COUNT], *job[CONV_COUNT], *slot[CONV_COUNT];
  float *reference[CONV_COUNT];
};

static struct results compute(const char *selector, int threads, const struct mode *mode) {
  struct results it;
  sparkle_device *device = NULL;
  sparkle_timing timing = {.size = sizeof timing};
  /* The library's threads start in this mode. */
  OK_IN(mode, sparkle_finalize());
  OK_IN(mode, sparkle_set_num_threads(threads));
  OK_IN(mode, sparkle_device_open(selector, &device));
  sparkle_gemm_desc gemm = {.size = sizeof gemm,
                            .layout = SPARKLE_ROW_MAJOR,
                            .trans_a = SPARKLE_NO_TRANS,
                            .trans_b = SPARKLE_NO_TRANS,
                            .m = N,
                            .n = N,
                            .k = N,
                            .alpha = 1,
                            .lda = N,
                            .ldb = N,
                            .ldc = N};
  it.product = filled(N * N, CANARY);
  OK_IN(mode, sparkle_sgemm(device, &gemm, data.a, N * N, data.b, N * N, it.product, N * N));
  OK_IN(mode, sparkle_last_timing(&timing));
  sparkle_pipeline *pipeline = NULL;
  OK_IN(mode, sparkle_pipeline_create(device, NULL, &pipeline));
  for (int i = 0; i < CONV_COUNT; i++) {
    const struct conv *conv = &CONVS[i];
    size_t in = input_len(conv), w = weights_len(conv), out = output_len(conv);
    const float *input = data.input[i], *weights = data.weights[i];
    sparkle_conv2d_desc desc = describe(conv, 0, 1);
    desc.algorithm = SPARKLE_ALGORITHM_AUTO;
    it.call[i] = filled(out, CANARY), it.plan[i] = filled(out, CANARY), it.job[i] = filled(out, CANARY);
    it.slot[i] = floats(out);
    OK_IN(mode, sparkle_conv2d(device, &desc, input, in, weights, w, NULL, 0, it.call[i], out));
    sparkle_plan *plan = NULL;
    OK_IN(mode, sparkle_plan_create(device, &desc, weights, w, NULL, 0, &plan));
    OK_IN(mode, sparkle_plan_execute(plan, input, in, it.plan[i], out));
    sparkle_ticket *ticket = NULL;
    OK_IN(mode, sparkle_submit(pipeline, plan, input, in, it.job[i], out, 1, &ticket));
    OK_IN(mode, sparkle_ticket_wait(ticket, -1));
    OK_IN(mode, sparkle_ticket_release(ticket));
    sparkle_slot *slot = NULL;
    float *fill = NULL;
    const float *result = NULL;
    OK_IN(mode, sparkle_slot_acquire(pipeline, plan, 1, &slot));
    OK_IN(mode, sparkle_slot_memory(slot, &fill, &result));
    memcpy(fill, input, in * sizeof *fill);
    OK_IN(mode, sparkle_slot_submit(slot, &ticket));
    OK_IN(mode, sparkle_ticket_wait(ticket, -1));
    memcpy(it.slot[i], result, out * sizeof *result);
    OK_IN(mode, sparkle_ticket_release(ticket));
    OK_IN(mode, sparkle_slot_release(slot));
    OK_IN(mode, sparkle_plan_destroy(plan));
    it.reference[i] = filled(out, CANARY);
    if (strncmp(selector, "gl:", 3) == 0) {
      float ms = -1;
      int truth = 0;
      IN(mode, truth = gpu_initialize_opengl());
      CHECK(truth == 1, "%s: %s", mode->name, sparkle_last_error());
      IN(mode, truth = gpu_compile_conv2d_shader());
      CHECK(truth == 1, "%s: %s", mode->name, sparkle_last_error());
      IN(mode, ms = gpu_execute_conv2d_fortran(input, weights, it.reference[i], (int)conv->n, (int)conv->c,
                                               (int)conv->h, (int)conv->w, (int)conv->k, (int)conv->r,
                                               (int)conv->stride_h, (int)conv->pad_h, (int)conv_p(conv),
                                               (int)conv_q(conv)));
      CHECK(ms >= 0, "%s: %s", mode->name, sparkle_last_error());
      IN(mode, gpu_cleanup_opengl());
    }
  }
  OK_IN(mode, sparkle_pipeline_destroy(pipeline));
  OK_IN(mode, sparkle_device_close(device));
  return it;
}

static void compare(const char *what, const struct mode *mode, int threads, float *got, const float *expected, size_t count) {
  for (size_t i = 0; i < count; i++)
    CHECK(memcmp(got + i, expected + i, sizeof *got) == 0, "%s, %s, %d threads: element %zu is %a, not %a", what,
          mode->name, threads, i, got[i], expected[i]);
  free(got);
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: float_env DEVICE");
  for (int scale = 0; scale < 2; scale++) {
    float last = scale == 0 ? 1e-38f : 1e30f;
    data.a = values(N * N, 1, last), data.b = values(N * N, 2, last);
    for (int i = 0; i < CONV_COUNT; i++) {
      data.input[i] = values(input_len(&CONVS[i]), 3, last);
      data.weights[i] = values(weights_len(&CONVS[i]), 4, last);
    }
    struct results expected = compute(argv[1], 1, &MODES[0]);
    for (int at = 0; at < COUNT; at++) {
      const struct mode *mode = &MODES[at];
      for (int threads = 1; threads <= 3; threads++) {
        struct results got = compute(argv[1], threads, mode);
        compare("product", mode, threads, got.product, expected.product, N * N);
        for (int i = 0; i < CONV_COUNT; i++) {
          size_t count = output_len(&CONVS[i]);
          compare("call", mode, threads, got.call[i], expected.call[i], count);
          compare("plan", mode, threads, got.plan[i], expected.plan[i], count);
          compare("job", mode, threads, got.job[i], expected.job[i], count);
          compare("slot", mode, threads, got.slot[i], expected.slot[i], count);
          compare("reference", mode, threads, got.reference[i], expected.reference[i], count);
        }
        /* On GL, one number of threads is enough, because the CPU does not compute. */
        if (strncmp(argv[1], "gl:", 3) == 0) break;
      }
    }
  }
  CHECK(calls > 1000, "%u calls", calls);
  printf("%d modes\n", COUNT);
  return 0;
}
