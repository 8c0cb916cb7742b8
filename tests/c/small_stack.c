/* Every kind of call from a thread with 64 KiB of stack, which the header guarantees to suffice. The first argument names the
 * device. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>

enum { STACK = 64 << 10, N = 200 };

static const struct conv CONVS[] = {
    {1, 128, 28, 28, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1}, {1, 12, 21, 20, 24, 3, 3, 2, 2, 1, 1, 1, 1, 1},
    {1, 96, 14, 14, 64, 1, 1, 1, 1, 0, 0, 1, 1, 1},   {1, 64, 16, 16, 64, 3, 3, 1, 1, 1, 1, 1, 1, 64},
    {1, 600, 4, 4, 320, 3, 3, 1, 1, 1, 1, 1, 1, 1},   {1, 3, 5, 6, 4, 2, 2, 1, 1, 0, 0, 1, 1, 1},
};

static const char *selector;

static void convolve(sparkle_device *device, sparkle_pipeline *pipeline, const struct conv *conv, float largest) {
  size_t in = input_len(conv), w = weights_len(conv), out = output_len(conv);
  float *input = integers(in, 1), *weights = integers(w, 2), *output = filled(out, CANARY);
  input[0] *= largest;
  sparkle_conv2d_desc desc = describe(conv, 0, 0);
  desc.algorithm = SPARKLE_ALGORITHM_AUTO;
  OK(sparkle_conv2d(device, &desc, input, in, weights, w, NULL, 0, output, out));
  sparkle_plan *plan = NULL;
  OK(sparkle_plan_create(device, &desc, weights, w, NULL, 0, &plan));
  OK(sparkle_plan_execute(plan, input, in, output, out));
  sparkle_ticket *ticket = NULL;
  OK(sparkle_submit(pipeline, plan, input, in, output, out, 1, &ticket));
  OK(sparkle_ticket_wait(ticket, -1));
  OK(sparkle_ticket_release(ticket));
  sparkle_slot *slot = NULL;
  OK(sparkle_slot_acquire(pipeline, plan, 1, &slot));
  OK(sparkle_slot_submit(slot, &ticket));
  OK(sparkle_ticket_wait(ticket, -1));
  OK(sparkle_ticket_release(ticket));
  OK(sparkle_slot_release(slot));
  OK(sparkle_plan_destroy(plan));
  free(input), free(weights), free(output);
}

static void *all(void *threads) {
  OK(sparkle_set_num_threads(*(int *)threads));
  sparkle_device *device = NULL;
  OK(sparkle_device_open(selector, &device));
  sparkle_pipeline *pipeline = NULL;
  OK(sparkle_pipeline_create(device, NULL, &pipeline));
  for (size_t i = 0; i < sizeof CONVS / sizeof *CONVS; i++) {
    convolve(device, pipeline, &CONVS[i], 1.0f);
    /* Inputs that overflow in Winograd's transforms use another algorithm. */
    convolve(device, pipeline, &CONVS[i], 3e37f);
  }
  static const int SIZES[][3] = {{N, N, N}, {N, 3, N}, {2, N, N}, {N, N, 4}};
  for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
    sparkle_gemm_desc desc = {.size = sizeof desc,
                              .layout = SPARKLE_ROW_MAJOR,
                              .trans_a = SPARKLE_NO_TRANS,
                              .trans_b = SPARKLE_TRANS,
                              .m = SIZES[i][0],
                              .n = SIZES[i][1],
                              .k = SIZES[i][2],
                              .alpha = 2,
                              .lda = N,
                              .ldb = N,
                              .ldc = N};
    float *a = integers(N * N, 3), *c = filled(N * N, CANARY);
    OK(sparkle_sgemm(device, &desc, a, N * N, a, N * N, c, N * N));
    free(a), free(c);
  }
  OK(sparkle_pipeline_destroy(pipeline));
  OK(sparkle_device_close(device));
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: small_stack DEVICE");
  selector = argv[1];
  for (int threads = 1; threads <= 2; threads++) {
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK) == 0, "attributes");
    CHECK(pthread_create(&thread, &attributes, all, &threads) == 0, "thread");
    CHECK(pthread_join(thread, NULL) == 0, "join");
  }
  printf("64 KiB\n");
  return 0;
}
