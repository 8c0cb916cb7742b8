/* fork() after the parent used the device that the argument names; children and grandchildren use it again. On the CPU
 * everything still works. GL handles return SPARKLE_ERROR_FORKED; a child opens no new GL device here. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <sys/wait.h>
#include <unistd.h>

static const struct conv CONV = {1, 8, 16, 16, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1};

static struct {
  sparkle_device *device;
  sparkle_plan *plan;
  float *input, *weights, *output;
  int on_gl, without_gl;
} it;

static void compute(sparkle_status expected) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  size_t input_count = input_len(&CONV), weights_count = weights_len(&CONV), count = output_len(&CONV);
  for (int way = 0; way < 2; way++) {
    for (size_t i = 0; i < count; i++) it.output[i] = CANARY;
    sparkle_status status =
        way ? sparkle_plan_execute(it.plan, it.input, input_count, it.output, count)
            : sparkle_conv2d(it.device, &desc, it.input, input_count, it.weights, weights_count, NULL, 0, it.output, count);
    CHECK(status == expected, "%s: %s", sparkle_status_string(status), sparkle_last_error());
    if (expected == SPARKLE_OK)
      check_conv("fork", &CONV, it.input, it.weights, NULL, 0, it.output);
    else
      check_untouched("output", it.output, count);
  }
}

/* Runs `body` in a child process, which must succeed. */
static void in_child(void (*body)(void)) {
  pid_t child = fork();
  CHECK(child >= 0, "fork");
  if (child == 0) {
    body();
    /* After use of GL, exit handlers of drivers wait for threads that do not exist in a child (Mesa's work queues do).
     * Without GL, a child may call exit(). */
    if (it.without_gl) exit(0);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

static void again(void) { compute(it.on_gl ? SPARKLE_ERROR_FORKED : SPARKLE_OK); }

static void nested(void) {
  again();
  in_child(again);
  again();
}

/* A child can release the parent's handles, and its own new handles work. */
static void fresh(void) {
  OK(sparkle_plan_destroy(it.plan));
  OK(sparkle_device_close(it.device));
  OK(sparkle_finalize());
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  OK(sparkle_device_open("cpu", &it.device));
  OK(sparkle_plan_create(it.device, &desc, it.weights, weights_len(&CONV), NULL, 0, &it.plan));
  compute(SPARKLE_OK);
  OK(sparkle_finalize());
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: fork DEVICE");
  it.on_gl = strncmp(argv[1], "gl:", 3) == 0;
  it.without_gl = strcmp(argv[1], "cpu") == 0;
  it.input = integers(input_len(&CONV), 1), it.weights = integers(weights_len(&CONV), 2);
  it.output = floats(output_len(&CONV));
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  OK(sparkle_device_open(argv[1], &it.device));
  OK(sparkle_plan_create(it.device, &desc, it.weights, weights_len(&CONV), NULL, 0, &it.plan));
  for (int round = 0; round < 20; round++) {
    compute(SPARKLE_OK);
    in_child(again);
    in_child(nested);
    in_child(fresh);
  }
  compute(SPARKLE_OK);
  printf("forks\n");
  return 0;
}
