/* Thread creation in the library fails from the Nth thread on. The first argument names the device. Every call succeeds or
 * reports that no thread could be created. When threads are available again, everything works. */
#define _GNU_SOURCE
#include <sparkle_reference.h>

#include "new_api.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_int first, wanted;

/* Replaces the system's function. It fails only for the library, so drivers still get their threads. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
  static int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  Dl_info caller;
  if (!create) *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
  if (first && dladdr(__builtin_return_address(0), &caller) && strstr(caller.dli_fname, "libsparkle") &&
      ++wanted >= first)
    return EAGAIN;
  return create(thread, attributes, body, argument);
}

static const struct conv CONV = {1, 16, 40, 38, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1};
static float *input, *weights, *output;
static int may_fail; /* Whether thread creation may fail now. */

/* Returns whether the call succeeded. */
static int worked(const char *call, sparkle_status status) {
  if (status == SPARKLE_OK) return 1;
  const char *message = sparkle_last_error();
  CHECK(may_fail, "%s: %s, although threads are available", call, message);
  CHECK(status == SPARKLE_ERROR_OUT_OF_MEMORY || status == SPARKLE_ERROR_BUSY, "%s: %s: %s", call,
        sparkle_status_string(status), message);
  CHECK(strstr(message, "thread") != NULL, "%s: %s", call, message);
  return 0;
}

#define WORKED(call) worked(#call, call)

static void clear(void) {
  for (size_t i = 0; i < output_len(&CONV); i++) output[i] = CANARY;
}

static void check(int worked, const char *what) {
  if (worked) check_conv(what, &CONV, input, weights, NULL, 0, output);
  else check_untouched(what, output, output_len(&CONV));
  clear();
}

static void pipeline(sparkle_device *device, sparkle_plan *plan) {
  sparkle_pipeline *pipeline;
  sparkle_ticket *ticket;
  sparkle_slot *slot;
  if (!WORKED(sparkle_pipeline_create(device, NULL, &pipeline))) return;
  for (int i = 0; i < 3; i++) {
    if (!WORKED(sparkle_submit(pipeline, plan, input, input_len(&CONV), output, output_len(&CONV), 1, &ticket))) continue;
    check(WORKED(sparkle_ticket_wait(ticket, -1)), "a job");
    OK(sparkle_ticket_release(ticket));
  }
  if (WORKED(sparkle_slot_acquire(pipeline, plan, 1, &slot))) {
    float *fill;
    OK(sparkle_slot_memory(slot, &fill, NULL));
    memcpy(fill, input, input_len(&CONV) * sizeof(float));
    if (WORKED(sparkle_slot_submit(slot, &ticket))) {
      WORKED(sparkle_ticket_wait(ticket, -1));
      OK(sparkle_ticket_release(ticket));
    }
    OK(sparkle_slot_release(slot));
  }
  OK(sparkle_pipeline_destroy(pipeline));
}

static void everything(const char *name) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  sparkle_device *device;
  sparkle_plan *plan;
  clear();
  if (WORKED(sparkle_device_open(name, &device))) {
    check(WORKED(sparkle_conv2d(device, &desc, input, input_len(&CONV), weights, weights_len(&CONV), NULL, 0, output,
                                output_len(&CONV))), "a call");
    if (WORKED(sparkle_plan_create(device, &desc, weights, weights_len(&CONV), NULL, 0, &plan))) {
      check(WORKED(sparkle_plan_execute(plan, input, input_len(&CONV), output, output_len(&CONV))), "a plan");
      pipeline(device, plan);
      OK(sparkle_plan_destroy(plan));
    }
    OK(sparkle_device_close(device));
  }
  if (strncmp(name, "gl:", 3) == 0) {
    float time = gpu_execute_conv2d_fortran(input, weights, output, 1, 16, 40, 38, 16, 3, 1, 1, 40, 38);
    CHECK(time >= 0 || (may_fail && strstr(sparkle_last_error(), "thread")), "%s", sparkle_last_error());
    check(time >= 0, "the reference interface");
    gpu_cleanup_opengl();
  }
  OK(sparkle_finalize());
}

int main(int argc, char **argv) {
  CHECK(argc == 3, "usage: no_threads DEVICE FIRST");
  input = integers(input_len(&CONV), 1), weights = integers(weights_len(&CONV), 2), output = floats(output_len(&CONV));
  may_fail = 1, first = atoi(argv[2]);
  everything(argv[1]);
  int all = wanted < first;
  may_fail = 0, first = 0;
  everything(argv[1]);
  printf("%s\n", all ? "enough threads" : "too few threads");
  free(input), free(weights), free(output);
  return 0;
}
