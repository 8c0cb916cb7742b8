/* A program of the kind that the reference interface serves, including likely mistakes of callers. */
#define _POSIX_C_SOURCE 200809L
#include "reference.h"

#include <pthread.h>

#include "gl.h"

/* C differs from H, so that swapped arguments are detected. */
static struct conv shape(int i) {
  switch (i) {
    case 0: return square(1, 3, 16, 20, 8, 3, 1, 1);
    case 1: return square(2, 5, 9, 7, 4, 3, 2, 0);
    case 2: return square(1, 1, 6, 6, 1, 1, 1, 0);
    case 3: return square(3, 4, 12, 11, 6, 5, 3, 2);
    default: return square(1, 2, 7, 30, 3, 7, 1, 3);
  }
}
enum { SHAPES = 5 };

/* A user's kernel. It computes the negative of the convolution, which shows that it ran. Its workgroup size and its formatting
 * differ from the library's. */
static const char *const NEGATIVE =
    "#version 430 core\n"
    "layout(local_size_x=32) in;\n"
    "layout(std430, binding = 0) readonly buffer A { float a[]; };\n"
    "layout(std430, binding = 1) readonly buffer B { float b[]; };\n"
    "layout(std430, binding = 2) writeonly buffer O { float o[]; };\n"
    "layout(std430, binding = 3) readonly buffer P { int N, H, W, C, K, size, stride, pad, Ho, Wo; };\n"
    "void main() {\n"
    "  int i = int(gl_GlobalInvocationID.x);\n"
    "  if (i >= N * K * Ho * Wo) return;\n"
    "  int x = i % Wo, y = i / Wo % Ho, k = i / (Wo * Ho) % K, n = i / (Wo * Ho * K);\n"
    "  float sum = 0.0;\n"
    "  for (int c = 0; c < C; c++)\n"
    "    for (int r = 0; r < size; r++)\n"
    "      for (int s = 0; s < size; s++) {\n"
    "        int v = y * stride + r - pad, u = x * stride + s - pad;\n"
    "        if (v >= 0 && v < H && u >= 0 && u < W)\n"
    "          sum += a[((n * C + c) * H + v) * W + u] * b[((k * C + c) * size + r) * size + s];\n"
    "      }\n"
    "  o[i] = -sum;\n"
    "}\n";

static const char *const BROKEN = "#version 430 core\nlayout(local_size_x = 64) in;\nvoid main() { nonsense = 1; }\n";

/* Buffers for one convolution. The output lies between canaries. */
struct data {
  float *input, *weights, *memory, *output;
  size_t count;
};

static struct data make(const struct conv *it, unsigned seed) {
  struct data data;
  data.input = integers(input_len(it), seed), data.weights = integers(weights_len(it), seed + 1);
  data.count = output_len(it);
  data.memory = filled(data.count + 2, CANARY), data.output = data.memory + 1;
  return data;
}

static void reset_output(struct data *data) {
  for (size_t i = 0; i < data->count + 2; i++) data->memory[i] = CANARY;
}

static void done(struct data *data) { free(data->input), free(data->weights), free(data->memory); }

/* Checks that the outputs times `sign` are correct and nothing else was written, then resets the outputs. */
static void check(const char *what, const struct conv *it, struct data *data, int sign) {
  for (size_t i = 0; i < data->count; i++) data->output[i] *= (float)sign;
  check_conv(what, it, data->input, data->weights, NULL, 0, data->output);
  CHECK(data->memory[0] == CANARY && data->memory[data->count + 1] == CANARY, "%s: written outside", what);
  reset_output(data);
}

static void run_and_check(const char *what, const struct conv *it, struct data *data) {
  float time = gpu_execute_conv2d_fortran(data->input, data->weights, data->output, NUMBERS(it));
  CHECK(time > 0, "%s: %g ms: %s", what, time, sparkle_last_error());
  check(what, it, data, 1);
}

static void all_shapes(const char *what) {
  for (int i = 0; i < SHAPES; i++) {
    struct conv it = shape(i);
    struct data data = make(&it, 10 * (unsigned)i);
    run_and_check(what, &it, &data);
    conv2d_params_t params = params_of(&it);
    double time = gpu_execute_conv2d(data.input, data.weights, data.output, &params);
    CHECK(time > 0, "%g ms: %s", time, sparkle_last_error());
    check("the struct", &it, &data, 1);
    done(&data);
  }
}

static void before_initialisation(void) {
  struct conv it = shape(0);
  struct data data = make(&it, 1);
  CHECK(gpu_is_initialized() == 0 && gpu_get_compute_program() == 0, "initialised before any call");
  CHECK(gpu_compile_conv2d_shader() == 0, "compiled");
  CHECK(gpu_compile_custom_shader(NEGATIVE) == 0, "compiled");
  CHECK(gpu_create_buffer(NULL, 16).buffer_id == 0, "a buffer");
  float time = gpu_execute_conv2d_with_shader(data.input, data.weights, data.output, NUMBERS(&it), NEGATIVE);
  CHECK(time == -1.0f, "%g ms", time);
  check_untouched("output", data.memory, data.count + 2);
  gpu_cleanup_opengl();
  done(&data);
}

static void initialisation(void) {
  CHECK(gpu_initialize_opengl() == 1, "%s", sparkle_last_error());
  CHECK(gpu_is_initialized() == 1, "initialised");
  CHECK(glGetString(GL_VERSION) != NULL, "no context is current");
  CHECK(gpu_initialize_opengl() == 1 && create_egl_context() == 1, "%s", sparkle_last_error());
  CHECK(gpu_get_compute_program() == 0, "a program before it was compiled");
  CHECK(gpu_compile_conv2d_shader() == 1, "%s", sparkle_last_error());
  int program = gpu_get_compute_program();
  CHECK(program > 0 && glIsProgram((GLuint)program), "program %d", program);
  CHECK(gpu_compile_conv2d_shader() == 1 && gpu_get_compute_program() == program, "compiled twice");
  NO_GL_ERROR();
}

/* The state that a call leaves for the caller's GL calls. */
static void state_after_a_call(void) {
  struct conv it = shape(1);
  struct data data = make(&it, 2);
  run_and_check("state", &it, &data);
  CHECK(glGetString(GL_VERSION) != NULL, "no context is current");
  GLint buffer = 0;
  glGetIntegeri_v(GL_SHADER_STORAGE_BUFFER_BINDING, 3, &buffer);
  CHECK(buffer != 0, "no parameters are bound");
  conv2d_params_t expected = params_of(&it), found;
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, (GLuint)buffer);
  glGetBufferSubData(GL_SHADER_STORAGE_BUFFER, 0, sizeof found, &found);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0);
  CHECK(memcmp(&found, &expected, sizeof found) == 0, "other parameters are bound");
  NO_GL_ERROR();
  done(&data);
}

/* A call must work in any state of the caller: with buffers bound, without a current program, with an unread error. */
static void a_callers_state(void) {
  struct conv it = shape(2);
  struct data data = make(&it, 3);
  GLuint own[4];
  glGenBuffers(4, own);
  for (GLuint i = 0; i < 4; i++) {
    glBindBuffer(GL_SHADER_STORAGE_BUFFER, own[i]);
    glBufferData(GL_SHADER_STORAGE_BUFFER, 4, NULL, GL_DYNAMIC_COPY);
    glBindBufferBase(GL_SHADER_STORAGE_BUFFER, i, own[i]);
  }
  glUseProgram(0);
  glBindBuffer(GL_SHADER_STORAGE_BUFFER, 0x7fffffff); /* An error that the caller has not read. */
  run_and_check("a caller's state", &it, &data);
  while (glGetError() != GL_NO_ERROR) continue;
  glDeleteBuffers(4, own);
  run_and_check("deleted buffers", &it, &data);
  NO_GL_ERROR();
  done(&data);
}

static void bad_arguments(void) {
  struct conv it = shape(0);
  struct data data = make(&it, 4);
#define REFUSED(call) CHECK((call) == -1.0f && sparkle_last_error()[0], "not refused")
  REFUSED(gpu_execute_conv2d_fortran(data.input, data.weights, data.output, 0, 3, 16, 20, 8, 3, 1, 1, 16, 20));
  REFUSED(gpu_execute_conv2d_fortran(data.input, data.weights, data.output, -1, 3, 16, 20, 8, 3, 1, 1, 16, 20));
  REFUSED(gpu_execute_conv2d_fortran(data.input, data.weights, data.output, 1, 3, 16, 20, 8, 3, 1, 1, 17, 20));
  REFUSED(gpu_execute_conv2d_fortran(data.input, data.weights, data.output, 1, 3, 16, 20, 8, 3, 1, 1, 16, 0));
  REFUSED(gpu_execute_conv2d_fortran(NULL, data.weights, data.output, NUMBERS(&it)));
  REFUSED(gpu_execute_conv2d_fortran(data.input, NULL, data.output, NUMBERS(&it)));
  REFUSED(gpu_execute_conv2d_fortran(data.input, data.weights, NULL, NUMBERS(&it)));
  REFUSED(gpu_execute_conv2d(data.input, data.weights, data.output, NULL));
  REFUSED(gpu_execute_conv2d_custom(0x7fffffff, data.input, data.weights, data.output, NUMBERS(&it)));
  REFUSED(gpu_execute_conv2d_with_shader(data.input, data.weights, data.output, NUMBERS(&it), NULL));
  REFUSED(gpu_execute_conv2d_with_shader(data.input, data.weights, data.output, NUMBERS(&it), BROKEN));
  /* Every compiler's log contains "error". */
  CHECK(strstr(sparkle_last_error(), "error"), "no compiler log: %s", sparkle_last_error());
  int program = gpu_get_compute_program();
  CHECK(gpu_compile_custom_shader(BROKEN) == 0 && gpu_compile_custom_shader(NULL) == 0, "compiled");
  CHECK(gpu_compile_custom_shader("") == 0, "compiled");
  CHECK(gpu_get_compute_program() == program, "the program changed");
  check_untouched("output", data.memory, data.count + 2);
  run_and_check("after the refused calls", &it, &data);
  NO_GL_ERROR();
  done(&data);
}

static void buffers(void) {
  float values[5] = {1, 2, 3, 4, 5}, back[5] = {0};
  gpu_buffer_t buffer = gpu_create_buffer(values, sizeof values);
  CHECK(buffer.buffer_id != 0 && buffer.size_bytes == sizeof values, "%s", sparkle_last_error());
  CHECK(glIsBuffer(buffer.buffer_id), "the buffer is not in this context");
  gpu_download_buffer(buffer, back);
  CHECK(memcmp(values, back, sizeof back) == 0, "other values");
  gpu_buffer_t larger = buffer;
  larger.size_bytes += 4; /* Larger than the buffer. */
  float canaries[6] = {CANARY, CANARY, CANARY, CANARY, CANARY, CANARY};
  gpu_download_buffer(larger, canaries);
  check_untouched("a buffer", canaries, 6);
  gpu_free_buffer(buffer);
  CHECK(!glIsBuffer(buffer.buffer_id), "not freed");
  gpu_buffer_t empty = gpu_create_buffer(NULL, 4096);
  CHECK(empty.buffer_id != 0 && empty.size_bytes == 4096, "%s", sparkle_last_error());
  gpu_free_buffer(empty);
  NO_GL_ERROR();
}

/* set_conv2d_shader_source on the caller's shader object. */
static void own_shader_object(void) {
  GLuint shader = glCreateShader(GL_COMPUTE_SHADER);
  set_conv2d_shader_source(shader);
  glCompileShader(shader);
  GLint compiled = 0, linked = 0;
  glGetShaderiv(shader, GL_COMPILE_STATUS, &compiled);
  CHECK(compiled, "%s", sparkle_last_error());
  GLuint program = glCreateProgram();
  glAttachShader(program, shader);
  glLinkProgram(program);
  glGetProgramiv(program, GL_LINK_STATUS, &linked);
  CHECK(linked, "linked");
  glDeleteShader(shader);
  for (int i = 0; i < SHAPES; i++) {
    struct conv it = shape(i);
    struct data data = make(&it, 5);
    float time = gpu_execute_conv2d_custom((int)program, data.input, data.weights, data.output, NUMBERS(&it));
    CHECK(time > 0, "%s", sparkle_last_error());
    check("own shader object", &it, &data, 1);
    done(&data);
  }
  glDeleteProgram(program);
  NO_GL_ERROR();
}

static void custom_shaders(void) {
  struct conv it = shape(3);
  struct data data = make(&it, 6);
  float time = gpu_execute_conv2d_with_shader(data.input, data.weights, data.output, NUMBERS(&it), NEGATIVE);
  CHECK(time > 0, "%s", sparkle_last_error());
  check("with a shader", &it, &data, -1);
  run_and_check("the program is still the reference's", &it, &data);
  int program = gpu_compile_custom_shader(NEGATIVE);
  CHECK(program > 0 && gpu_get_compute_program() == program, "program %d: %s", program, sparkle_last_error());
  for (int which = -1; which <= 0; which++) {
    time = gpu_execute_conv2d_custom(which, data.input, data.weights, data.output, NUMBERS(&it));
    CHECK(time > 0, "%s", sparkle_last_error());
    check("the current program", &it, &data, -1);
  }
  time = gpu_execute_conv2d_custom(program, data.input, data.weights, data.output, NUMBERS(&it));
  CHECK(time > 0, "%s", sparkle_last_error());
  check("the custom program by name", &it, &data, -1);
  time = gpu_execute_conv2d_fortran(data.input, data.weights, data.output, NUMBERS(&it));
  CHECK(time > 0, "%s", sparkle_last_error());
  check("the custom program instead of the reference program", &it, &data, -1);
  done(&data);
  /* The next initialisation restores the reference program. */
  gpu_cleanup_opengl();
}

static void *other_thread(void *argument) {
  const char *what = argument;
  all_shapes(what);
  CHECK(glGetString(GL_VERSION) != NULL, "no context is current on the other thread");
  return NULL;
}

static void threads(void) {
  all_shapes("main, before the other thread");
  pthread_t others[4];
  CHECK(pthread_create(&others[0], NULL, other_thread, "the other thread") == 0, "thread");
  CHECK(pthread_join(others[0], NULL) == 0, "join");
  all_shapes("main, after the other thread");
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&others[i], NULL, other_thread, "at once") == 0, "thread");
  all_shapes("main, with four others");
  for (int i = 0; i < 4; i++) CHECK(pthread_join(others[i], NULL) == 0, "join");
  all_shapes("main, after all");
}

static void cleanup_and_again(void) {
  for (int round = 0; round < 3; round++) {
    gpu_cleanup_opengl();
    CHECK(gpu_is_initialized() == 0 && gpu_get_compute_program() == 0, "still initialised");
    gpu_cleanup_opengl();
    all_shapes("after cleanup, without initialisation"); /* The call initialises the interface itself. */
    CHECK(gpu_is_initialized() == 1 && gpu_get_compute_program() > 0, "initialised");
    gpu_cleanup_opengl();
    initialisation();
    all_shapes("after cleanup");
  }
}

int main(void) {
  before_initialisation();
  printf("before initialisation\n");
  initialisation();
  printf("initialisation\n");
  all_shapes("first");
  printf("shapes\n");
  state_after_a_call();
  a_callers_state();
  printf("state\n");
  bad_arguments();
  printf("bad arguments\n");
  buffers();
  printf("buffers\n");
  own_shader_object();
  custom_shaders();
  printf("shaders\n");
  threads();
  printf("threads\n");
  cleanup_and_again();
  printf("cleanup\n");
  return 0;
}
