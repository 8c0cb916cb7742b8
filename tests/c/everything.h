/* Calls every exported function on handles in any state, for programs that are about to end. No call may hang or crash. A call
 * that computes is correct, or returns an error and leaves its output unchanged. A call that closes something succeeds. */
#ifndef EVERYTHING_H
#define EVERYTHING_H

#include <sparkle.h>
#include <sparkle_reference.h>
#include <unistd.h>

#include "check.h"

/* CHECK for exit handlers, which must not call exit() again. */
#define WANT(condition, ...)                                          \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                                   \
      fprintf(stderr, " (last error: %s)\n", sparkle_last_error());   \
      _exit(1);                                                       \
    }                                                                 \
  } while (0)

/* A zeroed struct of the library with its `size` field set. */
#define SIZED(type, name) \
  type name;              \
  memset(&name, 0, sizeof name), name.size = sizeof name

static const struct conv SMALL = {1, 3, 8, 8, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1};

enum { JOBS = 6, INPUT = 3 * 8 * 8, WEIGHTS = 4 * 3 * 3 * 3, OUTPUT = 4 * 8 * 8 };

static struct {
  float *input, *weights, *output[JOBS];
  sparkle_conv2d_desc desc;
  sparkle_device *device;
  sparkle_plan *plan;
  sparkle_pipeline *pipeline;
  sparkle_ticket *ticket[JOBS];
  sparkle_slot *slot, *busy_slot;
  sparkle_ticket *busy_slot_ticket;
  gpu_buffer_t buffer;
} its;

/* Fills the data and describes SMALL. */
static inline void begin_everything(void) {
  its.input = integers(INPUT, 1), its.weights = integers(WEIGHTS, 2);
  for (int job = 0; job < JOBS; job++) its.output[job] = filled(OUTPUT, CANARY);
  WANT(sparkle_conv2d_desc_init(&its.desc) == SPARKLE_OK, "desc_init");
  its.desc.algorithm = SPARKLE_ALGORITHM_DIRECT;
  its.desc.c = 3, its.desc.h = its.desc.w = 8, its.desc.k = 4, its.desc.r = its.desc.s = 3;
  its.desc.pad_h = its.desc.pad_w = 1;
}

/* Checks that the output is correct if the status is OK, and unchanged otherwise. */
static inline void want_correct(const char *what, int status, float *output) {
  if (status == SPARKLE_OK) {
    for (long i = 0; i < OUTPUT; i++) {
      double expected = conv_at(&SMALL, its.input, its.weights, NULL, 0, 0, i / 64, i / 8 % 8, i % 8);
      WANT(output[i] == expected, "%s: output %ld is %g, expected %g", what, i, output[i], expected);
    }
    for (long i = 0; i < OUTPUT; i++) output[i] = CANARY;
  } else {
    for (long i = 0; i < OUTPUT; i++) WANT(output[i] == CANARY, "%s: output %ld was written", what, i);
  }
}

/* Checks that `status` is OK or an error that a call may return at the end of a process. */
static inline void want_status(const char *what, sparkle_status status) {
  int fine = status == SPARKLE_OK || status == SPARKLE_ERROR_ENDING || status == SPARKLE_ERROR_CANCELLED ||
             status == SPARKLE_ERROR_INVALID_HANDLE || status == SPARKLE_ERROR_BUSY ||
             status == SPARKLE_ERROR_NO_DEVICE || status == SPARKLE_ERROR_FORKED;
  WANT(fine, "%s: %s", what, sparkle_status_string(status));
  WANT(status == SPARKLE_OK || strlen(sparkle_last_error()) > 0, "%s: no error message", what);
}

/* Opens the device and creates a plan and a pipeline, with jobs in flight if `in_flight` is set. */
static inline void use_device(const char *selector, int in_flight) {
  WANT(sparkle_device_open(selector, &its.device) == SPARKLE_OK, "open %s", selector);
  WANT(sparkle_plan_create(its.device, &its.desc, its.weights, WEIGHTS, NULL, 0, &its.plan) == SPARKLE_OK, "plan");
  sparkle_status status = sparkle_plan_execute(its.plan, its.input, INPUT, its.output[0], OUTPUT);
  WANT(status == SPARKLE_OK, "execute: %s", sparkle_status_string(status));
  want_correct("before the end", status, its.output[0]);
  WANT(sparkle_pipeline_create(its.device, NULL, &its.pipeline) == SPARKLE_OK, "pipeline");
  if (!in_flight) return;
  WANT(sparkle_slot_acquire(its.pipeline, its.plan, 1, &its.slot) == SPARKLE_OK, "slot");
  WANT(sparkle_slot_acquire(its.pipeline, its.plan, 1, &its.busy_slot) == SPARKLE_OK, "another slot");
  float *input;
  WANT(sparkle_slot_memory(its.busy_slot, &input, NULL) == SPARKLE_OK, "memory");
  memcpy(input, its.input, INPUT * sizeof *input);
  for (int job = 0; job < JOBS; job++)
    WANT(sparkle_submit(its.pipeline, its.plan, its.input, INPUT, its.output[job], OUTPUT, 1, &its.ticket[job]) ==
             SPARKLE_OK,
         "submit");
  WANT(sparkle_slot_submit(its.busy_slot, &its.busy_slot_ticket) == SPARKLE_OK, "submit the slot");
}

/* The same through the reference interface. */
static inline void use_reference(void) {
  WANT(gpu_initialize_opengl() == 1, "initialize");
  float ms = gpu_execute_conv2d_fortran(its.input, its.weights, its.output[0], 1, 3, 8, 8, 4, 3, 1, 1, 8, 8);
  WANT(ms >= 0, "execute");
  want_correct("before the end", SPARKLE_OK, its.output[0]);
  its.buffer = gpu_create_buffer(its.input, INPUT * sizeof(float));
  WANT(its.buffer.buffer_id != 0, "a buffer");
}

static inline void compute_everything(const char *selector) {
  float *output = filled(OUTPUT, CANARY);
  sparkle_status status;
  /* Jobs in flight end, successfully or not. */
  int32_t done = 0;
  size_t index = JOBS;
  if (its.ticket[0] != NULL) {
    want_status("poll", sparkle_ticket_poll(its.ticket[0], &done));
    want_status("wait_any", sparkle_ticket_wait_any(its.ticket, JOBS, -1, &index));
    want_status("cancel", sparkle_ticket_cancel(its.ticket[JOBS - 1], &done));
    for (int job = 0; job < JOBS; job++) {
      status = sparkle_ticket_wait(its.ticket[job], -1);
      want_status("wait", status);
      /* In a child, the parent may have finished the job before the fork. */
      if (status != SPARKLE_ERROR_FORKED) want_correct("a job", status, its.output[job]);
    }
    want_status("wait for a slot's job", sparkle_ticket_wait(its.busy_slot_ticket, -1));
  }
  if (its.pipeline != NULL) {
    SIZED(sparkle_pipeline_stats, stats);
    sparkle_ticket *ticket = NULL;
    want_status("flush", sparkle_pipeline_flush(its.pipeline));
    want_status("stats", sparkle_pipeline_get_stats(its.pipeline, &stats));
    status = sparkle_submit(its.pipeline, its.plan, its.input, INPUT, output, OUTPUT, 1, &ticket);
    want_status("submit", status);
    if (status == SPARKLE_OK) {
      status = sparkle_ticket_wait(ticket, -1);
      want_status("wait for the job", status);
      WANT(sparkle_ticket_release(ticket) == SPARKLE_OK, "release the ticket");
    }
    want_correct("a job submitted at the end", status, output);
    sparkle_slot *slot = NULL;
    for (int32_t wait = 0; wait < 2; wait++) {
      status = sparkle_slot_acquire(its.pipeline, its.plan, wait, &slot);
      want_status("acquire", status);
      if (status == SPARKLE_OK) WANT(sparkle_slot_release(slot) == SPARKLE_OK, "release the slot");
    }
    if (its.slot != NULL && sparkle_slot_submit(its.slot, &ticket) == SPARKLE_OK) {
      want_status("wait for the slot", sparkle_ticket_wait(ticket, -1));
      WANT(sparkle_ticket_release(ticket) == SPARKLE_OK, "release the ticket");
    }
  }
  if (its.plan != NULL) {
    size_t packed, workspace;
    status = sparkle_plan_execute(its.plan, its.input, INPUT, output, OUTPUT);
    want_status("execute", status);
    want_correct("execute", status, output);
    want_status("memory", sparkle_plan_memory(its.plan, &packed, &workspace));
  }
  /* A new device, with calls, a plan and a pipeline on it and on the old one. */
  size_t devices = 0;
  SIZED(sparkle_device_info, info);
  SIZED(sparkle_architecture, architecture);
  SIZED(sparkle_tuning_record, record);
  want_status("count", sparkle_device_count(&devices));
  for (size_t device = 0; device < devices; device++) want_status("describe", sparkle_device_describe(device, &info));
  (void)sparkle_device_architecture(0, &architecture);
  (void)sparkle_tuning_history_load(0, "task", "variant", &record);
  sparkle_device *device = NULL;
  status = sparkle_device_open(selector, &device);
  want_status("open", status);
  for (int other = 0; other < 2; other++) {
    sparkle_device *on = other ? device : its.device;
    if (on == NULL) continue;
    status = sparkle_conv2d(on, &its.desc, its.input, INPUT, its.weights, WEIGHTS, NULL, 0, output, OUTPUT);
    want_status("conv2d", status);
    want_correct("conv2d", status, output);
    sparkle_gemm_desc product = {sizeof product, SPARKLE_ROW_MAJOR, SPARKLE_NO_TRANS, SPARKLE_NO_TRANS,
                                 1, 1, 2, 2, 1, 1, 1, 0};
    float a[2] = {2, 3}, b[2] = {5, 7}, c = CANARY;
    status = sparkle_sgemm(on, &product, a, 2, b, 2, &c, 1);
    want_status("sgemm", status);
    WANT(c == (status == SPARKLE_OK ? 31 : CANARY), "sgemm: %g", c);
    sparkle_plan *plan = NULL;
    status = sparkle_plan_create(on, &its.desc, its.weights, WEIGHTS, NULL, 0, &plan);
    want_status("plan", status);
    if (status == SPARKLE_OK) WANT(sparkle_plan_destroy(plan) == SPARKLE_OK, "destroy the plan");
    sparkle_pipeline *pipeline = NULL;
    status = sparkle_pipeline_create(on, NULL, &pipeline);
    want_status("pipeline", status);
    if (status == SPARKLE_OK) WANT(sparkle_pipeline_destroy(pipeline) == SPARKLE_OK, "destroy the pipeline");
  }
  if (device != NULL) WANT(sparkle_device_close(device) == SPARKLE_OK, "close the new device");
  SIZED(sparkle_timing, timing);
  size_t length = 0;
  (void)sparkle_last_timing(&timing);
  (void)sparkle_shader_source(&its.desc, NULL, NULL, 0, &length);
  WANT(sparkle_version() > 0 && sparkle_version_string()[0] != 0 && sparkle_get_num_threads() > 0, "version and threads");
  free(output);
}

/* Calls the whole reference interface. Functions that compute initialise it again if they can. */
static inline void compute_reference(void) {
  float *output = filled(OUTPUT, CANARY), read[INPUT];
  conv2d_params_t params = {1, 8, 8, 3, 4, 3, 1, 1, 8, 8};
  float ms = gpu_execute_conv2d_fortran(its.input, its.weights, output, 1, 3, 8, 8, 4, 3, 1, 1, 8, 8);
  want_correct("gpu_execute_conv2d_fortran", ms >= 0 ? SPARKLE_OK : SPARKLE_ERROR_ENDING, output);
  WANT(ms >= 0 || strlen(sparkle_last_error()) > 0, "no error message");
  double all = gpu_execute_conv2d(its.input, its.weights, output, &params);
  want_correct("gpu_execute_conv2d", all >= 0 ? SPARKLE_OK : SPARKLE_ERROR_ENDING, output);
  ms = gpu_execute_conv2d_custom(gpu_get_compute_program(), its.input, its.weights, output, 1, 3, 8, 8, 4, 3, 1, 1, 8, 8);
  want_correct("gpu_execute_conv2d_custom", ms >= 0 ? SPARKLE_OK : SPARKLE_ERROR_ENDING, output);
  ms = gpu_execute_conv2d_with_shader(its.input, its.weights, output, 1, 3, 8, 8, 4, 3, 1, 1, 8, 8, "no shader");
  WANT(ms < 0, "no shader");
  (void)gpu_compile_conv2d_shader();
  (void)gpu_compile_custom_shader("no shader");
  (void)gpu_is_initialized();
  (void)gpu_is_reference_program(1);
  (void)gpu_enqueue_conv2d(1, 2, 3, 4, &params);
  (void)create_egl_context();
  (void)gpu_initialize_opengl();
  set_conv2d_shader_source(1);
  gpu_buffer_t buffer = gpu_create_buffer(its.input, sizeof read);
  gpu_download_buffer(buffer.buffer_id ? buffer : its.buffer, read);
  gpu_free_buffer(buffer);
  free(output);
}

static inline void close_everything(void) {
  for (int job = 0; job < JOBS; job++)
    if (its.ticket[job] != NULL) WANT(sparkle_ticket_release(its.ticket[job]) == SPARKLE_OK, "release a ticket");
  if (its.busy_slot_ticket != NULL) WANT(sparkle_ticket_release(its.busy_slot_ticket) == SPARKLE_OK, "release the slot's ticket");
  if (its.busy_slot != NULL) WANT(sparkle_slot_release(its.busy_slot) == SPARKLE_OK, "release a slot");
  /* One slot stays: it outlives its pipeline. */
  if (its.pipeline != NULL) WANT(sparkle_pipeline_destroy(its.pipeline) == SPARKLE_OK, "destroy the pipeline");
  if (its.plan != NULL) WANT(sparkle_plan_destroy(its.plan) == SPARKLE_OK, "destroy the plan");
  if (its.slot != NULL) WANT(sparkle_slot_release(its.slot) == SPARKLE_OK, "release the last slot");
  if (its.device != NULL) WANT(sparkle_device_close(its.device) == SPARKLE_OK, "close the device");
  memset(its.ticket, 0, sizeof its.ticket);
  its.busy_slot_ticket = NULL, its.busy_slot = its.slot = NULL, its.pipeline = NULL, its.plan = NULL, its.device = NULL;
  if (its.buffer.buffer_id != 0) gpu_free_buffer(its.buffer);
  its.buffer.buffer_id = 0;
  gpu_cleanup_opengl();
  WANT(sparkle_finalize() == SPARKLE_OK, "finalize");
}

#endif
