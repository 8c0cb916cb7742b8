/* A pipeline on the device that the first argument names, with jobs in buffers and in slots, collected as they finish. With the
 * second argument "leave" the program ends while jobs are in flight; with "fork" it forks while they are. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <sys/wait.h>
#include <unistd.h>

enum { JOBS = 24, SLOTS = 2 };

static const struct conv CONV = {3, 8, 16, 17, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1};

static struct {
  sparkle_plan *plan;
  sparkle_pipeline *pipeline;
  float *weights, *input[JOBS], *output[JOBS];
  sparkle_ticket *ticket[JOBS];
} it;

static void submit_all(void) {
  for (unsigned i = 0; i < JOBS; i++) {
    it.input[i] = integers(input_len(&CONV), i + 10);
    it.output[i] = filled(output_len(&CONV), CANARY);
    OK(sparkle_submit(it.pipeline, it.plan, it.input[i], input_len(&CONV), it.output[i], output_len(&CONV), 1,
                      &it.ticket[i]));
  }
}

static void check_job(unsigned i) { check_conv("a job", &CONV, it.input[i], it.weights, NULL, 0, it.output[i]); }

/* Collects jobs as they finish. */
static void collect(void) {
  unsigned left[JOBS], count = JOBS;
  for (unsigned i = 0; i < JOBS; i++) left[i] = i;
  while (count > 0) {
    sparkle_ticket *tickets[JOBS];
    for (unsigned i = 0; i < count; i++) tickets[i] = it.ticket[left[i]];
    size_t index = JOBS;
    int32_t done = 7;
    OK(sparkle_ticket_wait_any(tickets, count, -1, &index));
    CHECK(index < count, "%zu of %u", index, count);
    OK(sparkle_ticket_poll(tickets[index], &done));
    CHECK(done == 1, "wait_any returned a job with done = %d", done);
    OK(sparkle_ticket_cancel(tickets[index], &done));
    CHECK(done == 0, "cancelled a finished job");
    OK(sparkle_ticket_wait(tickets[index], 0));
    check_job(left[index]);
    OK(sparkle_ticket_release(tickets[index]));
    left[index] = left[--count];
  }
  printf("jobs\n");
}

static void slots(void) {
  for (unsigned round = 0; round < 6; round++) {
    sparkle_slot *slot[SLOTS];
    sparkle_ticket *ticket[SLOTS];
    const float *result;
    float *fill;
    for (unsigned i = 0; i < SLOTS; i++) {
      OK(sparkle_slot_acquire(it.pipeline, it.plan, 1, &slot[i]));
      OK(sparkle_slot_memory(slot[i], &fill, NULL));
      memcpy(fill, it.input[round + i], input_len(&CONV) * sizeof(float));
      OK(sparkle_slot_submit(slot[i], &ticket[i]));
    }
    for (unsigned i = 0; i < SLOTS; i++) {
      OK(sparkle_ticket_wait(ticket[i], -1));
      OK(sparkle_ticket_release(ticket[i]));
      OK(sparkle_slot_memory(slot[i], NULL, &result));
      check_conv("a slot", &CONV, it.input[round + i], it.weights, NULL, 0, result);
      OK(sparkle_slot_release(slot[i]));
    }
  }
  printf("slots\n");
}

/* In a child no thread runs the parent's jobs. Calls return SPARKLE_ERROR_FORKED, and none hangs. */
static void fork_in_flight(void) {
  pid_t child = fork();
  CHECK(child >= 0, "fork");
  if (child == 0) {
    CHECK(sparkle_ticket_wait(it.ticket[JOBS - 1], -1) == SPARKLE_ERROR_FORKED, "%s", sparkle_last_error());
    CHECK(sparkle_pipeline_flush(it.pipeline) == SPARKLE_ERROR_FORKED, "%s", sparkle_last_error());
    OK(sparkle_ticket_release(it.ticket[JOBS - 1]));
    OK(sparkle_pipeline_destroy(it.pipeline));
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

int main(int argc, char **argv) {
  CHECK(argc == 2 || argc == 3, "usage: stream DEVICE [leave | fork]");
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  it.weights = integers(weights_len(&CONV), 2);
  sparkle_device *device = NULL;
  OK(sparkle_device_open(argv[1], &device));
  OK(sparkle_plan_create(device, &desc, it.weights, weights_len(&CONV), NULL, 0, &it.plan));
  sparkle_pipeline_options options = {.size = sizeof options, .slots = SLOTS, .queue = JOBS, .piece_bytes = 16384};
  OK(sparkle_pipeline_create(device, &options, &it.pipeline));
  submit_all();
  if (argc == 3 && strcmp(argv[2], "leave") == 0) {
    printf("leaving\n");
    return 0;
  }
  if (argc == 3) fork_in_flight();
  collect();
  slots();
  sparkle_pipeline_stats stats = {.size = sizeof stats};
  OK(sparkle_pipeline_flush(it.pipeline));
  OK(sparkle_pipeline_get_stats(it.pipeline, &stats));
  CHECK(stats.completed == JOBS + 6 * SLOTS && stats.failed == 0 && stats.cancelled == 0, "%d completed, %d failed",
        (int)stats.completed, (int)stats.failed);
  OK(sparkle_pipeline_destroy(it.pipeline));
  OK(sparkle_plan_destroy(it.plan));
  OK(sparkle_device_close(device));
  OK(sparkle_finalize());
  return 0;
}
