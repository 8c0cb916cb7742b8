/* gpu_enqueue_conv2d: convolutions on the caller's buffers, queued on the caller's context instead of a dispatch of the reference
 * program. */
#include "reference.h"

#include "gl.h"

extern int gpu_enqueue_conv2d(int program, unsigned int input, unsigned int weights, unsigned int output,
                              const conv2d_params_t *params);
extern int gpu_is_reference_program(int program);

enum { SURPLUS = 7 };

static const char *const ONES =
    "#version 430 core\n"
    "layout(local_size_x = 64) in;\n"
    "layout(std430, binding = 2) writeonly buffer O { float o[]; };\n"
    "void main() { for (uint i = gl_GlobalInvocationID.x; i < uint(o.length()); i += gl_NumWorkGroups.x * 64u) o[i] = 1.0; }\n";

/* Large enough for a faster kernel than the reference program. Exact with every kernel: it is not 3x3, so Winograd is not used. */
static struct conv large(void) { return square(2, 20, 22, 25, 18, 5, 1, 2); }

struct buffers {
  size_t counts[3];
  float *input, *weights;
  GLuint names[3];
};

static GLuint buffer(size_t count, const float *values) {
  GLuint name = 0;
  glGenBuffers(1, &name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, name);
  glBufferData(GL_SHADER_STORAGE_BUFFER, (GLsizeiptr)(count * sizeof(float)), values, GL_DYNAMIC_COPY);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0);
  return name;
}

static struct buffers make(const struct conv *it, size_t surplus) {
  struct buffers made = {{input_len(it) + surplus, weights_len(it) + surplus, output_len(it) + surplus}, NULL, NULL, {0}};
  made.input = integers(made.counts[0], 1), made.weights = integers(made.counts[1], 2);
  float *output = filled(made.counts[2], CANARY);
  made.names[0] = buffer(made.counts[0], made.input), made.names[1] = buffer(made.counts[1], made.weights);
  made.names[2] = buffer(made.counts[2], output);
  free(output);
  return made;
}

static void done(struct buffers *made) {
  glDeleteBuffers(3, made->names);
  free(made->input), free(made->weights);
}

static float *output_of(const struct buffers *made) {
  float *output = filled(made->counts[2], NAN);
  glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, made->names[2]);
  glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(made->counts[2] * sizeof(float)), output);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0);
  return output;
}

static void check_output(const char *what, const struct conv *it, const struct buffers *made) {
  float *output = output_of(made);
  check_conv(what, it, made->input, made->weights, NULL, 0, output);
  check_untouched(what, output + output_len(it), made->counts[2] - output_len(it));
  free(output);
}

static int enqueue(const struct buffers *made, const conv2d_params_t *params) {
  return gpu_enqueue_conv2d(gpu_get_compute_program(), made->names[0], made->names[1], made->names[2], params);
}

static void call(const struct conv *it) {
  float *input = integers(input_len(it), 3), *weights = integers(weights_len(it), 4), *output = filled(output_len(it), CANARY);
  CHECK(gpu_execute_conv2d_fortran(input, weights, output, NUMBERS(it)) > 0, "%s", sparkle_last_error());
  free(input), free(weights), free(output);
}

/* Bindings and the current program are those that the caller's own dispatch would leave. */
static void check_state(const struct buffers *made, GLint params) {
  for (GLuint index = 0; index < 4; index++) {
    GLint found = 0, expected = index < 3 ? (GLint)made->names[index] : params;
    glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_BINDING, index, &found);
    CHECK(found == expected, "buffer %d at index %u, expected %d", found, index, expected);
  }
  GLint program = 0;
  glGetIntegerv(GL_CURRENT_PROGRAM, &program);
  CHECK(program == gpu_get_compute_program(), "program %d is current", program);
  NO_GL_ERROR();
}

static void with_parameters(size_t surplus) {
  struct conv it = large();
  conv2d_params_t params = params_of(&it);
  struct buffers made = make(&it, surplus);
  GLuint own = buffer(10, NULL);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 3, own);
  for (unsigned round = 0; round < 3; round++) {
    /* New weights in each round. */
    free(made.weights), made.weights = integers(made.counts[1], 10 + round);
    glBindBuffer(GL_SHADER_STORAGE_BUFFER, made.names[1]);
    glBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(made.counts[1] * sizeof(float)), made.weights);
    CHECK(enqueue(&made, &params) == 1, "%s", sparkle_last_error());
    check_state(&made, (GLint)own);
    check_output("with parameters", &it, &made);
  }
  glDeleteBuffers(1, &own);
  done(&made);
}

static void after_a_call(void) {
  struct conv it = large(), other = square(2, 20, 22, 25, 17, 5, 1, 2);
  struct buffers made = make(&it, 0), longer = make(&it, SURPLUS);
  call(&it);
  GLint params = 0;
  glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_BINDING, 3, &params);
  CHECK(enqueue(&made, NULL) == 1, "%s", sparkle_last_error());
  check_state(&made, params);
  check_output("after a call", &it, &made);
  CHECK(enqueue(&longer, NULL) == 0 && strstr(sparkle_last_error(), "input"), "%s", sparkle_last_error());
  call(&other);
  CHECK(enqueue(&made, NULL) == 0 && strstr(sparkle_last_error(), "weights"), "%s", sparkle_last_error());
  call(&it);
  GLuint own = buffer(10, NULL);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 3, own);
  CHECK(enqueue(&made, NULL) == 0 && strstr(sparkle_last_error(), "params"), "%s", sparkle_last_error());
  glDeleteBuffers(1, &own);
  NO_GL_ERROR();
  done(&made), done(&longer);
}

static void refusals(void) {
  struct conv it = large(), small = square(1, 2, 5, 6, 3, 3, 1, 1);
  conv2d_params_t params = params_of(&it), bad = params_of(&it);
  struct buffers made = make(&it, 0), little = make(&small, 0);
  int program = gpu_get_compute_program();
  const GLuint *names = made.names;
  const int programs[] = {0, -1, program + 1, 0x7fffffff};
  for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
    CHECK(gpu_enqueue_conv2d(programs[i], names[0], names[1], names[2], &params) == 0, "program %d", programs[i]);
    CHECK(strstr(sparkle_last_error(), "program"), "%s", sparkle_last_error());
    CHECK(gpu_is_reference_program(programs[i]) == 0, "program %d", programs[i]);
  }
  CHECK(gpu_is_reference_program(program) == 1, "program %d", program);
  bad.H_out++;
  CHECK(enqueue(&made, &bad) == 0 && strstr(sparkle_last_error(), "H_out"), "%s", sparkle_last_error());
  const GLuint wrong[] = {0, little.names[0], 0x7fffffff};
  for (size_t i = 0; i < 3; i++)
    for (size_t j = 0; j < 3; j++) {
      GLuint some[3] = {names[0], names[1], names[2]};
      some[i] = wrong[j];
      CHECK(gpu_enqueue_conv2d(program, some[0], some[1], some[2], &params) == 0, "buffer %u", wrong[j]);
      CHECK(sparkle_last_error()[0], "no error message");
      while (glGetError() != GL_NO_ERROR) continue;
    }
  /* Too small for another kernel than the reference program. */
  params = params_of(&small);
  CHECK(enqueue(&little, &params) == 0, "a small convolution was queued");
  float *output = output_of(&little);
  check_untouched("refused", output, little.counts[2]);
  free(output), output = output_of(&made);
  check_untouched("refused", output, made.counts[2]);
  free(output);
  NO_GL_ERROR();
  done(&made), done(&little);
}

static void another_program(void) {
  struct conv it = large();
  conv2d_params_t params = params_of(&it);
  struct buffers made = make(&it, 0);
  int program = gpu_compile_custom_shader(ONES);
  CHECK(program > 0 && gpu_get_compute_program() == program, "%s", sparkle_last_error());
  CHECK(gpu_is_reference_program(program) == 0, "the caller's program is taken for the reference program");
  CHECK(enqueue(&made, &params) == 0 && strstr(sparkle_last_error(), "program"), "%s", sparkle_last_error());
  float *output = output_of(&made);
  check_untouched("refused", output, made.counts[2]);
  free(output);
  done(&made);
}

int main(void) {
  conv2d_params_t params = {1, 1, 1, 1, 1, 1, 1, 0, 1, 1};
  CHECK(gpu_enqueue_conv2d(1, 1, 2, 3, &params) == 0 && sparkle_last_error()[0], "not initialised");
  CHECK(gpu_is_reference_program(1) == 0, "not initialised");
  CHECK(gpu_initialize_opengl() == 1 && gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  struct conv it = large();
  struct buffers made = make(&it, 0);
  CHECK(enqueue(&made, NULL) == 0 && strstr(sparkle_last_error(), "params"), "%s", sparkle_last_error());
  done(&made);
  with_parameters(0), with_parameters(SURPLUS);
  after_a_call();
  refusals();
  another_program();
  gpu_cleanup_opengl();
  CHECK(gpu_initialize_opengl() == 1 && gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  with_parameters(0);
  gpu_cleanup_opengl();
  printf("queued\n");
  return 0;
}
