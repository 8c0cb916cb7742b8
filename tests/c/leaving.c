/* usage: leaving INTERFACE STATE WHEN
 * Uses INTERFACE, which is "reference" or a device of the new interface, leaves it in STATE and ends. WHEN selects the handler,
 * destructor, thread or child that calls every function. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "everything.h"

static const char *interface;
static int destructor_calls;
static atomic_int stop;
static pthread_t thread;
static pthread_key_t key;

static void say(const char *text) { WANT(write(1, text, strlen(text)) == (ssize_t)strlen(text), "write"); }

static int is_reference(void) { return strcmp(interface, "reference") == 0; }

static void call_everything(void) {
  compute_everything(is_reference() ? "gl:0" : interface);
  compute_reference();
  close_everything();
  compute_everything(is_reference() ? "gl:0" : interface);
  compute_reference();
  close_everything();
  say("left\n");
}

/* Computes until `stop` is set or a call fails. */
static void *compute(void *barrier) {
  float *output = filled(OUTPUT, CANARY);
  sparkle_plan *plan = its.plan;
  for (int round = 0; !stop; round++) {
    if (round == 1) pthread_barrier_wait(barrier);
    sparkle_status status = SPARKLE_OK;
    if (is_reference()) {
      float ms = gpu_execute_conv2d_fortran(its.input, its.weights, output, 1, 3, 8, 8, 4, 3, 1, 1, 8, 8);
      status = ms >= 0 ? SPARKLE_OK : SPARKLE_ERROR_ENDING;
    } else {
      status = sparkle_plan_execute(plan, its.input, INPUT, output, OUTPUT);
    }
    want_status("meanwhile", status);
    want_correct("meanwhile", status, output);
    if (status != SPARKLE_OK) break;
  }
  free(output);
  return NULL;
}

static void join_first(void) {
  stop = 1;
  WANT(pthread_join(thread, NULL) == 0, "join");
  call_everything();
}

__attribute__((destructor)) static void destructor(void) {
  if (destructor_calls) call_everything();
}

static void key_destructor(void *value) {
  (void)value;
  call_everything();
}

static void *with_key(void *unused) {
  (void)unused;
  WANT(pthread_setspecific(key, &key) == 0, "key");
  /* Gives the thread state of the library that ends with the thread. */
  if (is_reference()) use_reference();
  float *output = floats(OUTPUT);
  if (its.plan != NULL)
    WANT(sparkle_plan_execute(its.plan, its.input, INPUT, output, OUTPUT) == SPARKLE_OK, "execute on a thread");
  free(output);
  return NULL;
}

static void in_child(void) {
  pid_t child = fork();
  WANT(child >= 0, "fork");
  if (child == 0) {
    call_everything();
    /* Drivers register exit handlers that wait for threads of the parent, so they are skipped. */
    _exit(0);
  }
  int status;
  WANT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %x", status);
}

int main(int argc, char **argv) {
  CHECK(argc == 4, "usage: leaving INTERFACE STATE WHEN");
  const char *state = argv[2], *when = argv[3];
  interface = argv[1];
  int in_flight = strcmp(state, "in_flight") == 0, busy = strcmp(state, "busy") == 0;
  begin_everything();
  if (strcmp(when, "early") == 0) CHECK(atexit(call_everything) == 0, "atexit");
  if (strcmp(when, "joining") == 0) CHECK(atexit(join_first) == 0, "atexit");
  destructor_calls = strcmp(when, "destructor") == 0;
  if (strcmp(state, "unused") != 0) {
    if (is_reference()) use_reference();
    else use_device(interface, in_flight);
  }
  if (strcmp(state, "finalized") == 0) close_everything();
  if (busy || strcmp(when, "joining") == 0) {
    pthread_barrier_t barrier;
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0, "barrier");
    CHECK(pthread_create(&thread, NULL, compute, &barrier) == 0, "thread");
    pthread_barrier_wait(&barrier);
  }
  if (strcmp(when, "late") == 0) CHECK(atexit(call_everything) == 0, "atexit");
  if (strcmp(when, "thread") == 0) {
    pthread_t ending;
    CHECK(pthread_key_create(&key, key_destructor) == 0, "key");
    CHECK(pthread_create(&ending, NULL, with_key, NULL) == 0, "thread");
    CHECK(pthread_join(ending, NULL) == 0, "join");
  }
  if (strcmp(when, "child") == 0) in_child();
  say("leaving\n");
  return 0;
}
