/* A user's own asynchronous loop, like the reference framework's pipeline. It uses three sets of buffers, fences, and
 * glDispatchCompute on the program from gpu_get_compute_program, with the grid of existing programs. The parameters are those
 * that the last synchronous call left bound. */
#include "reference.h"

#include "gl.h"

enum { SETS = 3, IMAGES = 12 };

struct set {
  GLuint input, output;
  GLsync fence;
  float *values; /* The uploaded input. */
};

static const GLuint64 SECOND = 1000000000u;

static GLuint buffer(size_t count, const float *values) {
  GLuint name = 0;
  glGenBuffers(1, &name);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, name);
  glBufferData(GL_SHADER_STORAGE_BUFFER, (GLsizeiptr)(count * sizeof(float)), values, GL_DYNAMIC_COPY);
  return name;
}

static void submit(const struct conv *it, struct set *set, GLuint weights, unsigned image) {
  set->values = integers(input_len(it), image);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, set->input);
  glBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(input_len(it) * sizeof(float)), set->values);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 0, set->input);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 1, weights);
  glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 2, set->output);
  glUseProgram((GLuint)gpu_get_compute_program());
  glDispatchCompute((GLuint)(conv_q(it) + 15) / 16, (GLuint)(conv_p(it) + 15) / 16, (GLuint)(it->n * it->k));
  glMemoryBarrier(GL_SHADER_STORAGE_BARRIER_BIT | GL_BUFFER_UPDATE_BARRIER_BIT);
  set->fence = glFenceSync(GL_SYNC_GPU_COMMANDS_COMPLETE, 0);
  glFlush();
}

static void collect(const struct conv *it, struct set *set, const float *weights) {
  GLenum state = glClientWaitSync(set->fence, GL_SYNC_FLUSH_COMMANDS_BIT, 60 * SECOND);
  CHECK(state == GL_ALREADY_SIGNALED || state == GL_CONDITION_SATISFIED, "fence %#x", state);
  glDeleteSync(set->fence);
  float *output = filled(output_len(it), NAN);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, set->output);
  glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, (GLsizeiptr)(output_len(it) * sizeof(float)), output);
  check_conv("the loop", it, set->values, weights, NULL, 0, output);
  free(output), free(set->values);
  set->fence = NULL;
}

static void loop(struct conv it) {
  float *input = integers(input_len(&it), 99), *weights = integers(weights_len(&it), 100);
  float *output = filled(output_len(&it), NAN);
  float time = gpu_execute_conv2d_fortran(input, weights, output, NUMBERS(&it));
  CHECK(time > 0, "%s", sparkle_last_error());
  check_conv("the synchronous call", &it, input, weights, NULL, 0, output);

  struct set sets[SETS];
  GLuint weights_buffer = buffer(weights_len(&it), weights);
  for (int i = 0; i < SETS; i++) {
    float *nothing = filled(output_len(&it), NAN);
    sets[i].input = buffer(input_len(&it), NULL), sets[i].output = buffer(output_len(&it), nothing);
    sets[i].fence = NULL;
    free(nothing);
  }
  for (unsigned image = 0; image < IMAGES; image++) {
    struct set *set = &sets[image % SETS];
    if (set->fence) collect(&it, set, weights);
    submit(&it, set, weights_buffer, image);
  }
  for (unsigned image = IMAGES; image < IMAGES + SETS; image++) collect(&it, &sets[image % SETS], weights);
  for (int i = 0; i < SETS; i++) glDeleteBuffers(1, &sets[i].input), glDeleteBuffers(1, &sets[i].output);
  glDeleteBuffers(1, &weights_buffer);
  NO_GL_ERROR();

  /* The library still works after the loop. */
  for (size_t i = 0; i < output_len(&it); i++) output[i] = NAN;
  time = gpu_execute_conv2d_fortran(input, weights, output, NUMBERS(&it));
  CHECK(time > 0, "%s", sparkle_last_error());
  check_conv("the synchronous call after the loop", &it, input, weights, NULL, 0, output);
  free(input), free(weights), free(output);
}

int main(void) {
  CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
  CHECK(gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  loop(square(1, 3, 40, 33, 10, 3, 1, 1));
  loop(square(2, 2, 17, 50, 5, 5, 2, 2));
  loop(square(1, 7, 3, 3, 2, 1, 1, 0));
  gpu_cleanup_opengl();
  printf("every output of %d images, three times\n", IMAGES);
  return 0;
}
