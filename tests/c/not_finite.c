/* NaN and infinities through the reference interface: its own call, the library's shader sources, and direct dispatches of its
 * kernel. An output is the sum of all products, including those with the zeros of the padding. */
#include <sparkle.h>
#include <sparkle_reference.h>

#include <math.h>

#include "gl.h"

static double expected_at(const struct conv *it, const float *input, const float *weights, long k, long p, long q) {
  double sum = 0;
  for (long c = 0; c < it->c; c++)
    for (long r = 0; r < it->r; r++)
      for (long s = 0; s < it->s; s++) {
        long y = p * it->stride_h + r - it->pad_h, x = q * it->stride_w + s - it->pad_w;
        int inside = y >= 0 && y < it->h && x >= 0 && x < it->w;
        double pixel = inside ? input[(c * it->h + y) * it->w + x] : 0.0;
        sum += pixel * weights[((k * it->c + c) * it->r + r) * it->s + s];
      }
  return sum;
}

static long not_finite;

static void compare(const char *what, const struct conv *it, const float *input, const float *weights,
                    const float *output) {
  long i = 0;
  for (long k = 0; k < it->k; k++)
    for (long p = 0; p < conv_p(it); p++)
      for (long q = 0; q < conv_q(it); q++, i++) {
        double expected = expected_at(it, input, weights, k, p, q);
        CHECK(output[i] == expected || (isnan(output[i]) && isnan(expected)), "%s: output (%ld, %ld, %ld) is %g, expected %g",
              what, k, p, q, output[i], expected);
        not_finite += !isfinite(expected);
      }
}

static GLuint buffer(GLuint index, size_t count, const float *values) {
  GLuint name = 0;
  glGenBuffers(1, &name);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, index, name);
  glBufferData(GL_SHADER_STORAGE_BUFFER, (GLsizeiptr)(count * sizeof(float)), values, GL_DYNAMIC_COPY);
  return name;
}

static void direct_dispatch(const struct conv *it, const float *input, const float *weights, float *output) {
  GLuint names[] = {buffer(0, input_len(it), input), buffer(1, weights_len(it), weights),
                    buffer(2, output_len(it), NULL)};
  glUseProgram((GLuint)gpu_get_compute_program());
  glDispatchCompute(1, 1, 1);
  glMemoryBarrier(GL_BUFFER_UPDATE_BARRIER_BIT);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, names[2]);
  glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(output_len(it) * sizeof(float)), output);
  glDeleteBuffers(3, names);
  NO_GL_ERROR();
}

static void all_paths(struct conv it, unsigned seed) {
  float *input = integers(input_len(&it), seed), *weights = integers(weights_len(&it), seed + 1);
  float *output = filled(output_len(&it), CANARY);
  size_t place = seed * 7919u;
  if (seed % 3 != 1) weights[place % weights_len(&it)] = INFINITY;
  if (seed % 3 != 0) input[place % input_len(&it)] = seed % 2 ? NAN : -INFINITY;
  int sizes[] = {(int)it.c, (int)it.h, (int)it.w, (int)it.k, (int)it.r, (int)it.stride_h, (int)it.pad_h,
                 (int)conv_p(&it), (int)conv_q(&it)};
#define SIZES 1, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8]
  CHECK(gpu_execute_conv2d_fortran(input, weights, output, SIZES) >= 0, "%s", sparkle_last_error());
  compare("the call", &it, input, weights, output);
  direct_dispatch(&it, input, weights, output);
  compare("a direct dispatch", &it, input, weights, output);
  sparkle_conv2d_desc desc;
  sparkle_conv2d_desc_init(&desc);
  desc.c = it.c, desc.h = it.h, desc.w = it.w, desc.k = it.k, desc.r = it.r, desc.s = it.s;
  desc.stride_h = it.stride_h, desc.stride_w = it.stride_w, desc.pad_h = it.pad_h, desc.pad_w = it.pad_w;
  for (int option = 0; option < 4; option++) {
    sparkle_shader_options options = {.size = sizeof options, .threads_x = 4, .threads_y = 4, .shared = option & 1};
    options.chains = 1 + option / 2;
    static char source[1 << 16];
    size_t length = 0;
    CHECK(!sparkle_shader_source(&desc, &options, source, sizeof source, &length), "%s", sparkle_last_error());
    for (size_t i = 0; i < output_len(&it); i++) output[i] = CANARY;
    CHECK(gpu_execute_conv2d_with_shader(input, weights, output, SIZES, source) >= 0, "%s", sparkle_last_error());
    compare(option & 1 ? "a source with shared memory" : "a source", &it, input, weights, output);
  }
  free(input), free(weights), free(output);
}

int main(void) {
  CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
  CHECK(gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  struct conv all[] = {{1, 3, 3, 3, 2, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                       {1, 5, 9, 7, 4, 5, 5, 2, 2, 3, 3, 1, 1, 1},
                       {1, 7, 1, 1, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1}};
  for (int i = 0; i < 3; i++)
    for (unsigned seed = 0; seed < 6; seed++) all_paths(all[i], seed);
  CHECK(not_finite > 500, "only %ld outputs are not finite", not_finite);
  gpu_cleanup_opengl();
  puts("results match the definition");
  return 0;
}
