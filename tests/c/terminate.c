/* Another library terminates the EGL display that Sparkle uses, between any two calls. Every call still succeeds. */
#define _POSIX_C_SOURCE 200809L
#include <sparkle_reference.h>

#include "new_api.h"

#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <pthread.h>

enum { MAX_DEVICES = 16 };

static const struct conv CONV = {2, 4, 9, 8, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1};
/* Enough data that calls split it into pieces and stream them. */
static const struct conv LARGE = {1, 1, 1024, 1200, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1};

static float *input, *weights, *output;
static sparkle_device *device;

/* Loads an EGL entry point, with the conversion that POSIX documents for dlsym. */
#define EGL_CALL(type, name)                          \
  type name##_ = NULL;                                \
  *(__eglMustCastToProperFunctionPointerType *)&name##_ = eglGetProcAddress(#name)

static void terminate(EGLDisplay display) {
  EGLint major, minor;
  if (display == EGL_NO_DISPLAY || !eglInitialize(display, &major, &minor)) return;
  CHECK(eglTerminate(display), "eglTerminate: %#x", eglGetError());
}

/* Terminates every display that Sparkle may use. */
static void terminate_all(void) {
  EGL_CALL(PFNEGLQUERYDEVICESEXTPROC, eglQueryDevicesEXT);
  EGL_CALL(PFNEGLGETPLATFORMDISPLAYEXTPROC, eglGetPlatformDisplayEXT);
  EGLDeviceEXT devices[MAX_DEVICES];
  EGLint count = 0;
  if (eglQueryDevicesEXT_ && eglGetPlatformDisplayEXT_ && eglQueryDevicesEXT_(MAX_DEVICES, devices, &count))
    for (EGLint i = 0; i < count; i++)
      terminate(eglGetPlatformDisplayEXT_(EGL_PLATFORM_DEVICE_EXT, devices[i], NULL));
  if (eglGetPlatformDisplayEXT_) terminate(eglGetPlatformDisplayEXT_(EGL_PLATFORM_SURFACELESS_MESA, EGL_DEFAULT_DISPLAY, NULL));
  terminate(eglGetDisplay(EGL_DEFAULT_DISPLAY));
  CHECK(eglReleaseThread(), "eglReleaseThread");
}

static void clear(void) {
  for (size_t i = 0; i < output_len(&CONV); i++) output[i] = CANARY;
}

static void check(const char *what) { check_conv(what, &CONV, input, weights, NULL, 0, output); }

static void call(const char *what) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  clear();
  OK(sparkle_conv2d(device, &desc, input, input_len(&CONV), weights, weights_len(&CONV), NULL, 0, output,
                    output_len(&CONV)));
  check(what);
}

static sparkle_plan *make_plan(void) {
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  sparkle_plan *plan;
  OK(sparkle_plan_create(device, &desc, weights, weights_len(&CONV), NULL, 0, &plan));
  return plan;
}

static void execute(sparkle_plan *plan, const char *what) {
  clear();
  OK(sparkle_plan_execute(plan, input, input_len(&CONV), output, output_len(&CONV)));
  check(what);
}

static void calls_and_plans(void) {
  sparkle_plan *before = make_plan();
  terminate_all();
  call("a call");
  terminate_all();
  execute(before, "a plan");
  terminate_all();
  sparkle_plan *after = make_plan();
  terminate_all();
  execute(after, "a plan created after termination");
  OK(sparkle_plan_destroy(before));
  OK(sparkle_plan_destroy(after));

  sparkle_conv2d_desc desc = describe(&LARGE, 0, 0);
  float *large = integers(input_len(&LARGE), 3), *result = filled(output_len(&LARGE), CANARY);
  for (int round = 0; round < 3; round++) {
    const float two = 2;
    terminate_all();
    OK(sparkle_conv2d(device, &desc, large, input_len(&LARGE), &two, 1, NULL, 0, result, output_len(&LARGE)));
    for (size_t i = 0; i < output_len(&LARGE); i++) {
      CHECK(result[i] == 2 * large[i], "a large call: output %zu is %g", i, result[i]);
      result[i] = CANARY;
    }
  }
  free(large), free(result);
  printf("calls and plans\n");
}

static void job(sparkle_pipeline *pipeline, sparkle_plan *plan, const char *what) {
  sparkle_ticket *ticket;
  clear();
  OK(sparkle_submit(pipeline, plan, input, input_len(&CONV), output, output_len(&CONV), 1, &ticket));
  OK(sparkle_ticket_wait(ticket, -1));
  OK(sparkle_ticket_release(ticket));
  check(what);
}

static void slot(sparkle_pipeline *pipeline, sparkle_plan *plan, int wait) {
  sparkle_slot *slot;
  sparkle_ticket *ticket;
  float *fill;
  const float *result;
  OK(sparkle_slot_acquire(pipeline, plan, wait, &slot));
  OK(sparkle_slot_memory(slot, &fill, &result));
  memcpy(fill, input, input_len(&CONV) * sizeof(float));
  terminate_all();
  OK(sparkle_slot_submit(slot, &ticket));
  OK(sparkle_ticket_wait(ticket, -1));
  check_conv("a slot", &CONV, input, weights, NULL, 0, result);
  OK(sparkle_ticket_release(ticket));
  OK(sparkle_slot_release(slot));
}

static void pipelines(void) {
  sparkle_plan *plan = make_plan();
  for (int round = 0; round < 6; round++) {
    sparkle_pipeline_options options = {0};
    sparkle_pipeline *pipeline;
    options.size = sizeof options, options.one_context = round % 2;
    terminate_all();
    OK(sparkle_pipeline_create(device, &options, &pipeline));
    terminate_all();
    if (round < 2) job(pipeline, plan, "the first job");
    else slot(pipeline, plan, round < 4);
    terminate_all();
    job(pipeline, plan, "a later job");
    terminate_all();
    OK(sparkle_pipeline_destroy(pipeline));
  }
  OK(sparkle_plan_destroy(plan));
  printf("pipelines\n");
}

static void *reference(void *what) {
  clear();
  float time = gpu_execute_conv2d_fortran(input, weights, output, 2, 4, 9, 8, 6, 3, 1, 1, 9, 8);
  CHECK(time >= 0, "%s: %s", (const char *)what, sparkle_last_error());
  check(what);
  return NULL;
}

static void on_a_new_thread(const char *what) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, reference, (void *)what) == 0, "thread");
  CHECK(pthread_join(thread, NULL) == 0, "join");
}

static void the_reference_interface(void) {
  CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
  terminate_all();
  reference("this thread");
  for (int round = 0; round < 3; round++) {
    terminate_all();
    on_a_new_thread("a new thread");
    terminate_all();
    reference("the old thread");
  }
  /* With no context current, the call must make its context current again. */
  terminate_all();
  eglMakeCurrent(eglGetCurrentDisplay(), EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
  reference("with no context current");
  terminate_all();
  gpu_cleanup_opengl();
  terminate_all();
  reference("after the cleanup");
  printf("the reference interface\n");
}

int main(void) {
  input = integers(input_len(&CONV), 1), weights = integers(weights_len(&CONV), 2), output = floats(output_len(&CONV));
  terminate_all();
  OK(sparkle_device_open("gl:0", &device));
  calls_and_plans();
  pipelines();
  the_reference_interface();
  OK(sparkle_finalize());
  terminate_all();
  OK(sparkle_device_open("gl:0", &device));
  call("after finalising");
  free(input), free(weights), free(output);
  return 0;
}
