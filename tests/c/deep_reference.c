/* Sums deeper than the loops of some drivers: by the reference interface, and by programs that dispatch its kernel themselves, with the
 * grid that existing programs use and with a single workgroup. Every output is right; of a single workgroup, right or NaN. */
#include "reference.h"

#include "gl.h"

static GLuint buffer(size_t count, const float *values) {
  GLuint name = 0;
  glGenBuffers(1, &name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, name);
  glBufferData(GL_SHADER_STORAGE_BUFFER, (GLsizeiptr)(count * sizeof(float)), values, GL_DYNAMIC_COPY);
  return name;
}

/* Dispatches the program on buffers of its own, over an output of other numbers. */
static void dispatch(const struct conv *it, const float *input, const float *weights, float *output, GLuint x, GLuint y,
                     GLuint z) {
  float *stale = filled(output_len(it), 12345);
  GLuint buffers[] = {buffer(input_len(it), input), buffer(weights_len(it), weights), buffer(output_len(it), stale)};
  for (GLuint i = 0; i < 3; i++) glBindBufferBase(GL_SHADER_STORAGE_BUFFER, i, buffers[i]);
  glUseProgram((GLuint)gpu_get_compute_program());
  glDispatchCompute(x, y, z);
  glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, buffers[2]);
  glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(output_len(it) * sizeof(float)), output);
  glDeleteBuffers(3, buffers);
  NO_GL_ERROR();
  free(stale);
}

/* Whether every output is right. */
static int deep(struct conv it) {
  float *input = integers(input_len(&it), 7), *weights = integers(weights_len(&it), 8);
  float *right = filled(output_len(&it), NAN), *output = filled(output_len(&it), NAN);
  float time = gpu_execute_conv2d_fortran(input, weights, right, NUMBERS(&it));
  CHECK(time > 0, "%s", sparkle_last_error());
  check_conv("the synchronous call", &it, input, weights, NULL, 0, right);

  dispatch(&it, input, weights, output, (GLuint)(conv_q(&it) + 15) / 16, (GLuint)(conv_p(&it) + 15) / 16,
           (GLuint)(it.n * it.k));
  for (size_t i = 0; i < output_len(&it); i++)
    CHECK(output[i] == right[i], "output %zu of the program's own dispatch is %g, not %g", i, output[i], right[i]);

  dispatch(&it, input, weights, output, 1, 1, 1);
  size_t nan = 0;
  for (size_t i = 0; i < output_len(&it); i++) {
    CHECK(output[i] == right[i] || isnan(output[i]), "output %zu of one workgroup is %g, not %g", i, output[i], right[i]);
    nan += isnan(output[i]) != 0;
  }
  free(input), free(weights), free(right), free(output);
  return nan == 0;
}

int main(void) {
  CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
  CHECK(gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  int whole = 0;
  whole += deep(square(1, 1024, 7, 7, 8, 7, 1, 0));
  whole += deep(square(2, 1500, 4, 4, 5, 5, 1, 2));
  whole += deep(square(1, 70000, 2, 2, 3, 1, 1, 0));
  whole += deep(square(1, 1, 260, 260, 1, 257, 1, 0));
  CHECK(whole == 4, "%d of 4 are whole", whole);
  /* So many outputs for each of 64 invocations that the loops of some drivers cannot end. */
  deep(square(1, 150, 40, 40, 16, 5, 1, 2));
  gpu_cleanup_opengl();
  puts("five deep convolutions");
  return 0;
}
