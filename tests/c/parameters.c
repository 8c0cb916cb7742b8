/* Dispatches of the caller's own on the library's program: with the parameters that a call left behind, with none, with the
 * caller's. Every output is right, or every output is NaN where parameters and buffers cannot belong together. */
#include "reference.h"

#include <pthread.h>

#include "gl.h"

static int checked = 0;

/* The grids that programs use: (ceil(W_out/16), ceil(H_out/16), N*K), a workgroup for 64 outputs, a single one. */
enum { GRIDS = 3 };

static void dispatch(const struct conv *it, int grid) {
  glUseProgram((GLuint)gpu_get_compute_program());
  GLuint x = (GLuint)(conv_q(it) + 15) / 16, y = (GLuint)(conv_p(it) + 15) / 16, z = (GLuint)(it->n * it->k);
  if (grid == 0) glDispatchCompute(x, y, z);
  if (grid == 1) glDispatchCompute((GLuint)(output_len(it) + 63) / 64, 1, 1);
  if (grid == 2) glDispatchCompute(1, 1, 1);
  glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT);
}

static GLuint bound(GLuint index, size_t bytes, const void *values) {
  GLuint name = 0;
  glGenBuffers(1, &name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, name);
  glBufferData(GL_SHADER_STORAGE_BUFFER, (GLsizeiptr)bytes, values, GL_DYNAMIC_COPY);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, index, name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0);
  return name;
}

/* Dispatches with buffers that are `surplus` elements longer than needed. Wanted: right outputs, or NaN. */
static void convolve(const char *what, const struct conv *it, size_t surplus, int right) {
  size_t inputs = input_len(it) + surplus, taps = weights_len(it) + surplus, outputs = output_len(it) + surplus;
  float *input = integers(inputs, 1), *weights = integers(taps, 2), *output = filled(outputs, CANARY);
  for (int grid = 0; grid < GRIDS; grid++, checked++) {
    GLuint names[3] = {bound(0, inputs * sizeof(float), input), bound(1, taps * sizeof(float), weights), 0};
    for (size_t i = 0; i < outputs; i++) output[i] = CANARY;
    names[2] = bound(2, outputs * sizeof(float), output);
    dispatch(it, grid);
    glBindBuffer(GL_SHADER_STORAGE_BUFFER, names[2]);
    glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(outputs * sizeof(float)), output);
    glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0);
    glDeleteBuffers(3, names);
    NO_GL_ERROR();
    if (right) {
      check_conv(what, it, input, weights, NULL, 0, output);
      check_untouched(what, output + output_len(it), surplus);
    } else {
      for (size_t i = 0; i < outputs; i++) CHECK(isnan(output[i]), "%s: output %zu is %g", what, i, output[i]);
    }
  }
  free(input), free(weights), free(output);
}

/* A call of the library's. */
static void call(const struct conv *it) {
  float *input = integers(input_len(it), 3), *weights = integers(weights_len(it), 4), *output = filled(output_len(it), CANARY);
  CHECK(gpu_execute_conv2d_fortran(input, weights, output, NUMBERS(it)) > 0, "%s", sparkle_last_error());
  check_conv("a call", it, input, weights, NULL, 0, output);
  free(input), free(weights), free(output);
}

static const struct conv *here(void) {
  static struct conv it;
  it = square(2, 3, 9, 11, 4, 3, 1, 1);
  return &it;
}

/* After a call of other sizes, smaller or larger in one respect, and after one of the same. */
static void after_a_call(void) {
  const struct conv others[] = {
      square(1, 3, 9, 11, 4, 3, 1, 1), square(3, 3, 9, 11, 4, 3, 1, 1), square(2, 2, 9, 11, 4, 3, 1, 1),
      square(2, 4, 9, 11, 4, 3, 1, 1), square(2, 3, 8, 11, 4, 3, 1, 1), square(2, 3, 10, 11, 4, 3, 1, 1),
      square(2, 3, 9, 10, 4, 3, 1, 1), square(2, 3, 9, 12, 4, 3, 1, 1), square(2, 3, 9, 11, 3, 3, 1, 1),
      square(2, 3, 9, 11, 5, 3, 1, 1), square(2, 3, 9, 11, 4, 1, 1, 0), square(2, 3, 9, 11, 4, 5, 1, 2),
      square(2, 3, 9, 11, 4, 3, 2, 1), square(2, 3, 9, 11, 4, 3, 1, 0), square(2, 3, 9, 11, 4, 3, 1, 2),
      square(1, 1, 1, 1, 1, 1, 1, 0),  square(1, 3, 20, 20, 8, 3, 1, 1)};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    call(&others[i]);
    convolve("after a call of other sizes", here(), 0, 0);
    call(here());
    convolve("after a call of the same sizes", here(), 0, 1);
    convolve("the caller's other sizes", &others[i], 0, 0);
  }
  convolve("buffers that are larger than those of the call", here(), 5, 0);
}

static void own_parameters(void) {
  conv2d_params_t params = params_of(here());
  call(&(struct conv){1, 1, 4, 4, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1});
  GLuint name = bound(3, sizeof params, &params);
  convolve("the caller's parameters", here(), 0, 1);
  convolve("the caller's parameters and larger buffers", here(), 37, 1);
  glDeleteBuffers(1, &name);

  /* A block of the caller's may be longer than the parameters. */
  struct { conv2d_params_t params; int others[6]; } longer = {params, {1, 2, 3, 4, 5, 6}};
  name = bound(3, sizeof longer, &longer);
  convolve("the caller's longer block", here(), 3, 1);
  glDeleteBuffers(1, &name);

  for (size_t i = 0; i < sizeof params / sizeof(int); i++) {
    const int values[] = {0, -1, -2147483647 - 1, 2147483647, 1 << 16};
    for (size_t j = 0; j < sizeof values / sizeof values[0]; j++) {
      conv2d_params_t bad = params_of(here());
      ((int *)&bad)[i] = values[j];
      /* Any stride and any padding belong to some convolution of these sizes; of no padding there is nothing to be seen. */
      if ((i == 6 || i == 7) && values[j] >= (i == 6)) continue;
      /* As long as the buffers suffice, it is the caller who knows how many rows and columns there are. */
      name = bound(3, sizeof bad, &bad);
      convolve("parameters that the buffers are too small for", here(), 0, 0);
      glDeleteBuffers(1, &name);
    }
  }
  name = bound(3, 4, &params);
  convolve("a block that is too short", here(), 0, 0);
  glDeleteBuffers(1, &name);
  convolve("no block at all", here(), 0, 0);
}

static void beginning(void) {
  CHECK(gpu_initialize_opengl() == 1 && gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  convolve("before any call", here(), 0, 0);
}

static void *other_thread(void *unused) {
  (void)unused;
  beginning();
  call(here());
  convolve("after a call on this thread", here(), 0, 1);
  return NULL;
}

int main(void) {
  beginning();
  call(here());
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0, "thread");
  CHECK(pthread_join(thread, NULL) == 0, "join");
  convolve("after a call and another thread's", here(), 0, 1);
  after_a_call();
  own_parameters();
  gpu_cleanup_opengl();
  beginning();
  gpu_cleanup_opengl();
  CHECK(checked > 100, "%d dispatches", checked);
  printf("every output of %d dispatches\n", checked);
  return 0;
}
