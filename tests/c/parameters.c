/* Direct dispatches of the library's program, with the parameters of an earlier call, with none, and with the caller's. Every
 * output is correct, or every output is NaN if parameters and buffers do not match. */
#include "reference.h"

#include <pthread.h>

#include "gl.h"

static int checked = 0;

/* The grids of existing programs: (ceil(W_out/16), ceil(H_out/16), N*K), one workgroup per 64 outputs, one workgroup. */
enum { GRIDS = 3 };

static void dispatch(const struct conv *it, int grid) {
  glUseProgram((GLuint)gpu_get_compute_program());
  GLuint x = (GLuint)(conv_q(it) + 15) / 16, y = (GLuint)(conv_p(it) + 15) / 16, z = (GLuint)(it->n * it->k);
  if (grid == 0) glDispatchCompute(x, y, z);
  if (grid == 1) glDispatchCompute((GLuint)(output_len(it) + 63) / 64, 1, 1);
  if (grid == 2) glDispatchCompute(1, 1, 1);
  glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT);
}

static GLuint bind_buffer(GLuint index, size_t bytes, const void *values) {
  GLuint name = 0;
  glGenBuffers(1, &name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, name);
  glBufferData(GL_SHADER_STORAGE_BUFFER, (GLsizeiptr)bytes, values, GL_DYNAMIC_COPY);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, index, name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0);
  return name;
}

/* Dispatches with buffers that are `surplus` elements longer than needed. Outputs must be correct if `matches`, and NaN if not. */
static void convolve(const char *what, const struct conv *it, size_t surplus, int matches) {
  size_t inputs = input_len(it) + surplus, taps = weights_len(it) + surplus, outputs = output_len(it) + surplus;
  float *input = integers(inputs, 1), *weights = integers(taps, 2), *output = filled(outputs, CANARY);
  for (int grid = 0; grid < GRIDS; grid++, checked++) {
    GLuint names[3] = {bind_buffer(0, inputs * sizeof(float), input), bind_buffer(1, taps * sizeof(float), weights), 0};
    for (size_t i = 0; i < outputs; i++) output[i] = CANARY;
    names[2] = bind_buffer(2, outputs * sizeof(float), output);
    dispatch(it, grid);
    glBindBuffer(GL_SHADER_STORAGE_BUFFER, names[2]);
    glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(outputs * sizeof(float)), output);
    glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0);
    glDeleteBuffers(3, names);
    NO_GL_ERROR();
    if (matches) {
      check_conv(what, it, input, weights, NULL, 0, output);
      check_untouched(what, output + output_len(it), surplus);
    } else {
      for (size_t i = 0; i < outputs; i++) CHECK(isnan(output[i]), "%s: output %zu is %g", what, i, output[i]);
    }
  }
  free(input), free(weights), free(output);
}

/* A call of the library. */
static void call(const struct conv *it) {
  float *input = integers(input_len(it), 3), *weights = integers(weights_len(it), 4), *output = filled(output_len(it), CANARY);
  CHECK(gpu_execute_conv2d_fortran(input, weights, output, NUMBERS(it)) > 0, "%s", sparkle_last_error());
  check_conv("a call", it, input, weights, NULL, 0, output);
  free(input), free(weights), free(output);
}

static const struct conv *tested(void) {
  static struct conv it;
  it = square(2, 3, 9, 11, 4, 3, 1, 1);
  return &it;
}

/* After a call with one smaller or larger size, and after one with the same sizes. */
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
    convolve("after a call with other sizes", tested(), 0, 0);
    call(tested());
    convolve("after a call with the same sizes", tested(), 0, 1);
    convolve("buffers of other sizes", &others[i], 0, 0);
  }
  convolve("buffers that are larger than those of the call", tested(), 5, 0);
}

static void own_parameters(void) {
  conv2d_params_t params = params_of(tested());
  call(&(struct conv){1, 1, 4, 4, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1});
  GLuint name = bind_buffer(3, sizeof params, &params);
  convolve("the caller's parameters", tested(), 0, 1);
  convolve("the caller's parameters and larger buffers", tested(), 37, 1);
  glDeleteBuffers(1, &name);

  /* The caller's buffer may be longer than the parameters. */
  struct { conv2d_params_t params; int others[6]; } longer = {params, {1, 2, 3, 4, 5, 6}};
  name = bind_buffer(3, sizeof longer, &longer);
  convolve("the caller's longer buffer", tested(), 3, 1);
  glDeleteBuffers(1, &name);

  for (size_t i = 0; i < sizeof params / sizeof(int); i++) {
    const int values[] = {0, -1, -2147483647 - 1, 2147483647, 1 << 16};
    for (size_t j = 0; j < sizeof values / sizeof values[0]; j++) {
      conv2d_params_t bad = params_of(tested());
      ((int *)&bad)[i] = values[j];
      /* The program cannot detect a wrong positive stride or a wrong padding that is not negative. */
      if ((i == 6 || i == 7) && values[j] >= (i == 6)) continue;
      /* The sizes are trusted as long as the buffers are large enough for them. */
      name = bind_buffer(3, sizeof bad, &bad);
      convolve("parameters that the buffers are too small for", tested(), 0, 0);
      glDeleteBuffers(1, &name);
    }
  }
  name = bind_buffer(3, 4, &params);
  convolve("a parameter buffer that is too short", tested(), 0, 0);
  glDeleteBuffers(1, &name);
  convolve("no parameter buffer", tested(), 0, 0);
}

static void initialise(void) {
  CHECK(gpu_initialize_opengl() == 1 && gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  convolve("before any call", tested(), 0, 0);
}

static void *other_thread(void *unused) {
  (void)unused;
  initialise();
  call(tested());
  convolve("after a call on this thread", tested(), 0, 1);
  return NULL;
}

int main(void) {
  initialise();
  call(tested());
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0, "thread");
  CHECK(pthread_join(thread, NULL) == 0, "join");
  convolve("after a call here and one on another thread", tested(), 0, 1);
  after_a_call();
  own_parameters();
  gpu_cleanup_opengl();
  initialise();
  gpu_cleanup_opengl();
  CHECK(checked > 100, "%d dispatches", checked);
  printf("every output of %d dispatches\n", checked);
  return 0;
}
