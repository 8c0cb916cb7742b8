/* Sums longer than the loop limits of some drivers. They run through the reference interface and through direct dispatches of
 * its kernel, with the grid that existing programs use and with one workgroup. Every output is correct; with one workgroup,
 * correct or NaN. */
#include "reference.h"

#include "gl.h"

static GLuint buffer(size_t count, const float *values) {
  GLuint name = 0;
  glGenBuffers(1, &name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, name);
  glBufferData(GL_SHADER_STORAGE_BUFFER, (GLsizeiptr)(count * sizeof(float)), values, GL_DYNAMIC_COPY);
  return name;
}

/* Dispatches the program on new buffers. The output buffer starts with stale numbers. */
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

/* Returns whether one workgroup computed every output; otherwise some are NaN. */
static int check_sums(struct conv it) {
  float *input = integers(input_len(&it), 7), *weights = integers(weights_len(&it), 8);
  float *expected = filled(output_len(&it), NAN), *output = filled(output_len(&it), NAN);
  float time = gpu_execute_conv2d_fortran(input, weights, expected, NUMBERS(&it));
  CHECK(time > 0, "%s", sparkle_last_error());
  check_conv("the synchronous call", &it, input, weights, NULL, 0, expected);

  dispatch(&it, input, weights, output, (GLuint)(conv_q(&it) + 15) / 16, (GLuint)(conv_p(&it) + 15) / 16,
           (GLuint)(it.n * it.k));
  for (size_t i = 0; i < output_len(&it); i++)
    CHECK(output[i] == expected[i], "output %zu of the direct dispatch is %g, not %g", i, output[i], expected[i]);

  dispatch(&it, input, weights, output, 1, 1, 1);
  size_t nan = 0;
  for (size_t i = 0; i < output_len(&it); i++) {
    CHECK(output[i] == expected[i] || isnan(output[i]), "output %zu of one workgroup is %g, not %g", i, output[i],
          expected[i]);
    nan += isnan(output[i]) != 0;
  }
  free(input), free(weights), free(expected), free(output);
  return nan == 0;
}

int main(void) {
  CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
  CHECK(gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  int complete = 0;
  complete += check_sums(square(1, 1024, 7, 7, 8, 7, 1, 0));
  complete += check_sums(square(2, 1500, 4, 4, 5, 5, 1, 2));
  complete += check_sums(square(1, 70000, 2, 2, 3, 1, 1, 0));
  complete += check_sums(square(1, 1, 260, 260, 1, 257, 1, 0));
  CHECK(complete == 4, "one workgroup computed %d of 4 convolutions completely", complete);
  /* Each of the 64 invocations has more outputs than the loop limits of some drivers allow. */
  check_sums(square(1, 150, 40, 40, 16, 5, 1, 2));
  gpu_cleanup_opengl();
  puts("five convolutions with long sums");
  return 0;
}
