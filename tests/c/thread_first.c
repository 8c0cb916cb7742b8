/* A thread makes the first use of the device that the argument names and ends before main does. Nothing is closed or finalised. */
#define _POSIX_C_SOURCE 200809L
#include <sparkle_reference.h>

#include "new_api.h"

#include <pthread.h>

static const struct conv CONV = {1, 4, 12, 12, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1};

static void *work(void *name) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  float *input = integers(input_len(&CONV), 1), *weights = integers(weights_len(&CONV), 2);
  float *output = floats(output_len(&CONV));
  sparkle_device *device;
  sparkle_plan *plan;
  sparkle_pipeline *pipeline;
  sparkle_ticket *ticket;
  OK(sparkle_device_open(name, &device));
  OK(sparkle_plan_create(device, &desc, weights, weights_len(&CONV), NULL, 0, &plan));
  OK(sparkle_plan_execute(plan, input, input_len(&CONV), output, output_len(&CONV)));
  check_conv("a plan", &CONV, input, weights, NULL, 0, output);
  OK(sparkle_pipeline_create(device, NULL, &pipeline));
  OK(sparkle_submit(pipeline, plan, input, input_len(&CONV), output, output_len(&CONV), 1, &ticket));
  OK(sparkle_ticket_wait(ticket, -1));
  check_conv("a job", &CONV, input, weights, NULL, 0, output);
  if (strncmp(name, "gl:", 3) == 0) {
    float time = gpu_execute_conv2d_fortran(input, weights, output, 1, 4, 12, 12, 4, 3, 1, 1, 12, 12);
    CHECK(time >= 0, "%s", sparkle_last_error());
    check_conv("the reference interface", &CONV, input, weights, NULL, 0, output);
  }
  free(input), free(weights), free(output);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: thread_first DEVICE");
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, work, argv[1]) == 0, "thread");
  CHECK(pthread_join(thread, NULL) == 0, "join");
  printf("the thread ended first\n");
  return 0;
}
