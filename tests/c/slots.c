/* Slots of a pipeline on the device that the argument names. There are as many as requested. Polling returns at once. A slot that
 * outlives its pipeline stays valid, and calls report that the pipeline was destroyed. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SLOTS = 3, POLLERS = 4, HOLDS = 40 };

static const struct conv CONV = {2, 3, 8, 9, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1};

static sparkle_device *device;
static sparkle_plan *plan;
static float *input, *weights;

static sparkle_pipeline *pipeline_of(int slots) {
  sparkle_pipeline_options options = {0};
  sparkle_pipeline *pipeline;
  options.size = sizeof options, options.slots = slots;
  OK(sparkle_pipeline_create(device, &options, &pipeline));
  return pipeline;
}

static void fill(sparkle_slot *slot) {
  float *memory;
  OK(sparkle_slot_memory(slot, &memory, NULL));
  memcpy(memory, input, input_len(&CONV) * sizeof(float));
}

static void check(const char *what, sparkle_slot *slot) {
  const float *output;
  OK(sparkle_slot_memory(slot, NULL, &output));
  check_conv(what, &CONV, input, weights, NULL, 0, output);
}

static void expect(const char *what, sparkle_status status, sparkle_status wanted, const char *words) {
  CHECK(status == wanted, "%s: %s (%s)", what, sparkle_status_string(status), sparkle_last_error());
  CHECK(strstr(sparkle_last_error(), words) != NULL, "%s: %s", what, sparkle_last_error());
}

/* All requested slots can be held. A released slot can be acquired again, even if it was released before its job was done. */
static void every_slot_can_be_held(void) {
  for (int slots = 1; slots <= SLOTS; slots++) {
    sparkle_pipeline *pipeline = pipeline_of(slots);
    sparkle_slot *slot[SLOTS], *another = NULL;
    for (int i = 0; i < slots; i++) OK(sparkle_slot_acquire(pipeline, plan, 0, &slot[i]));
    for (int i = 0; i < 100; i++) {
      sparkle_status status = sparkle_slot_acquire(pipeline, plan, 0, &another);
      expect("all are held", status, SPARKLE_ERROR_BUSY, "full");
      CHECK(another == NULL, "a slot in spite of the error");
    }
    OK(sparkle_slot_release(slot[0]));
    OK(sparkle_slot_acquire(pipeline, plan, 0, &slot[0]));
    sparkle_ticket *ticket;
    fill(slot[0]);
    OK(sparkle_slot_submit(slot[0], &ticket));
    int32_t cancelled = 7;
    OK(sparkle_ticket_cancel(ticket, &cancelled));
    CHECK(cancelled == 0, "cancelled a slot's job, which starts when it is submitted");
    OK(sparkle_slot_release(slot[0]));
    OK(sparkle_ticket_wait(ticket, -1));
    OK(sparkle_ticket_release(ticket));
    OK(sparkle_slot_acquire(pipeline, plan, 1, &slot[0]));
    for (int i = 0; i < slots; i++) {
      fill(slot[i]);
      OK(sparkle_slot_submit(slot[i], &ticket));
      OK(sparkle_ticket_wait(ticket, -1));
      OK(sparkle_ticket_release(ticket));
      check("a slot", slot[i]);
      OK(sparkle_slot_release(slot[i]));
    }
    OK(sparkle_pipeline_destroy(pipeline));
  }
  printf("every slot can be held\n");
}

static struct {
  sparkle_pipeline *pipeline;
  atomic_int stop, holds;
  atomic_long polls[POLLERS];
} race;

/* A thread that gets the slot holds it until every other thread has polled three more times. Polling must not block. */
static void *poll(void *number) {
  size_t self = (size_t)number;
  while (!race.stop) {
    sparkle_slot *slot;
    sparkle_status status = sparkle_slot_acquire(race.pipeline, plan, 0, &slot);
    race.polls[self]++;
    if (status == SPARKLE_ERROR_BUSY) continue;
    CHECK(status == SPARKLE_OK, "%s", sparkle_last_error());
    long before[POLLERS];
    for (size_t i = 0; i < POLLERS; i++) before[i] = race.polls[i];
    for (size_t i = 0; i < POLLERS; i++)
      while (i != self && race.polls[i] < before[i] + 3 && !race.stop) sched_yield();
    OK(sparkle_slot_release(slot));
    if (++race.holds >= HOLDS) race.stop = 1;
  }
  return NULL;
}

static void polling_never_blocks(void) {
  pthread_t threads[POLLERS];
  race.pipeline = pipeline_of(1);
  for (size_t i = 0; i < POLLERS; i++)
    CHECK(pthread_create(&threads[i], NULL, poll, (void *)i) == 0, "thread");
  for (size_t i = 0; i < POLLERS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "join");
  CHECK(race.holds >= HOLDS, "%d", race.holds);
  OK(sparkle_pipeline_destroy(race.pipeline));
  printf("polling never blocks\n");
}

static struct {
  sparkle_pipeline *pipeline;
  atomic_int begun;
  sparkle_status status;
  char message[200];
} waiter;

static void *wait_for_slot(void *release) {
  sparkle_slot *slot = NULL;
  waiter.begun = 1;
  waiter.status = sparkle_slot_acquire(waiter.pipeline, plan, 1, &slot);
  snprintf(waiter.message, sizeof waiter.message, "%s", waiter.status ? sparkle_last_error() : "");
  if (release && waiter.status == SPARKLE_OK) OK(sparkle_slot_release(slot));
  return NULL;
}

/* A waiting caller gets a released slot. It gets an error when the pipeline is destroyed or the library finalised. */
static void waiting_callers_wake_up(void) {
  for (int end = 0; end < 3; end++) {
    waiter.pipeline = pipeline_of(1);
    waiter.begun = 0;
    sparkle_slot *slot;
    pthread_t thread;
    OK(sparkle_slot_acquire(waiter.pipeline, plan, 0, &slot));
    CHECK(pthread_create(&thread, NULL, wait_for_slot, &waiter) == 0, "thread");
    while (!waiter.begun) sched_yield();
    if (end == 0) OK(sparkle_slot_release(slot));
    if (end == 1) OK(sparkle_pipeline_destroy(waiter.pipeline));
    if (end == 2) OK(sparkle_finalize());
    CHECK(pthread_join(thread, NULL) == 0, "join");
    if (end == 0) {
      CHECK(waiter.status == SPARKLE_OK, "%s", waiter.message);
      OK(sparkle_pipeline_destroy(waiter.pipeline));
    } else if (end == 2 && waiter.status == SPARKLE_OK) {
      /* sparkle_finalize also released the held slot, and the waiting thread acquired it in time. */
    } else {
      CHECK(waiter.status == SPARKLE_ERROR_INVALID_HANDLE, "%d: %s", waiter.status, waiter.message);
      CHECK(waiter.message[0] != 0, "no message");
      if (end == 1) OK(sparkle_slot_release(slot));
    }
  }
  printf("waiting callers wake up\n");
}

static void prepare(const char *name) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  OK(sparkle_device_open(name, &device));
  OK(sparkle_plan_create(device, &desc, weights, weights_len(&CONV), NULL, 0, &plan));
}

/* A slot whose pipeline was destroyed: without a job, with a finished job, and with a running job. */
static void slots_outlive_their_pipeline(void) {
  for (int round = 0; round < 10; round++) {
    sparkle_pipeline *pipeline = pipeline_of(SLOTS);
    sparkle_slot *slot[SLOTS];
    sparkle_ticket *ticket[SLOTS] = {NULL, NULL, NULL}, *none = NULL;
    for (int i = 0; i < SLOTS; i++) {
      OK(sparkle_slot_acquire(pipeline, plan, 1, &slot[i]));
      fill(slot[i]);
      if (i > 0) OK(sparkle_slot_submit(slot[i], &ticket[i]));
      if (i == 1) OK(sparkle_ticket_wait(ticket[i], -1));
    }
    OK(sparkle_pipeline_destroy(pipeline));
    for (int i = 0; i < SLOTS; i++) {
      if (i > 0) {
        OK(sparkle_ticket_wait(ticket[i], 0));
        check("a job submitted before the end", slot[i]);
        OK(sparkle_ticket_release(ticket[i]));
      }
      for (int again = 0; again < 2; again++) {
        sparkle_status status = sparkle_slot_submit(slot[i], &none);
        expect("a late job", status, SPARKLE_ERROR_INVALID_HANDLE, "the pipeline of this slot was destroyed");
        CHECK(none == NULL, "a ticket in spite of the error");
        fill(slot[i]);
      }
      float *memory;
      const float *output;
      OK(sparkle_slot_memory(slot[i], &memory, &output));
      CHECK(memcmp(memory, input, input_len(&CONV) * sizeof(float)) == 0, "the input changed");
      if (i > 0) check("the output after a refused job", slot[i]);
      expect("the pipeline", sparkle_slot_acquire(pipeline, plan, 0, &slot[i]), SPARKLE_ERROR_INVALID_HANDLE, "no longer");
      OK(sparkle_slot_release(slot[i]));
      expect("released", sparkle_slot_release(slot[i]), SPARKLE_ERROR_INVALID_HANDLE, "no longer exists");
    }
  }
  printf("slots outlive their pipeline\n");
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: slots DEVICE");
  input = integers(input_len(&CONV), 1), weights = integers(weights_len(&CONV), 2);
  prepare(argv[1]);
  every_slot_can_be_held();
  polling_never_blocks();
  slots_outlive_their_pipeline();
  waiting_callers_wake_up(); /* Last, because it finalises the library. */
  free(input), free(weights);
  return 0;
}
