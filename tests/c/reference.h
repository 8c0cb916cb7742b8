/* The reference interface, declared as in programs that do not include sparkle.h. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stddef.h>

#include "check.h"

typedef struct {
  int N, H, W, C, K, kernel_size, stride, pad, H_out, W_out;
} conv2d_params_t;

typedef struct {
  unsigned int buffer_id;
  size_t size_bytes;
} gpu_buffer_t;

extern int gpu_initialize_opengl(void);
extern void gpu_cleanup_opengl(void);
extern int gpu_is_initialized(void);
extern int gpu_compile_conv2d_shader(void);
extern int gpu_get_compute_program(void);
extern float gpu_execute_conv2d_fortran(const float *input, const float *weights, float *output, int N, int C, int H,
                                        int W, int K, int kernel_size, int stride, int pad, int H_out, int W_out);
extern double gpu_execute_conv2d(const float *input, const float *weights, float *output,
                                 const conv2d_params_t *params);
extern gpu_buffer_t gpu_create_buffer(const void *data, size_t size);
extern void gpu_download_buffer(gpu_buffer_t buffer, void *data);
extern void gpu_free_buffer(gpu_buffer_t buffer);
extern int create_egl_context(void);
extern void set_conv2d_shader_source(unsigned int shader);
extern int gpu_compile_custom_shader(const char *shader_source);
extern float gpu_execute_conv2d_custom(int program, const float *input, const float *weights, float *output, int N,
                                       int C, int H, int W, int K, int kernel_size, int stride, int pad, int H_out,
                                       int W_out);
extern float gpu_execute_conv2d_with_shader(const float *input, const float *weights, float *output, int N, int C,
                                            int H, int W, int K, int kernel_size, int stride, int pad, int H_out,
                                            int W_out, const char *shader_source);
/* Not part of the reference interface; used in failure messages. */
extern const char *sparkle_last_error(void);

/* A square convolution: N, C, H, W, K, kernel_size, stride, pad. */
static inline struct conv square(int n, int c, int h, int w, int k, int size, int stride, int pad) {
  struct conv it = {n, c, h, w, k, size, size, stride, stride, pad, pad, 1, 1, 1};
  return it;
}

/* The ten integers in the order of the functions' arguments. */
#define NUMBERS(it)                                                                                        \
  (int)(it)->n, (int)(it)->c, (int)(it)->h, (int)(it)->w, (int)(it)->k, (int)(it)->r, (int)(it)->stride_h, \
      (int)(it)->pad_h, (int)conv_p(it), (int)conv_q(it)

static inline conv2d_params_t params_of(const struct conv *it) {
  conv2d_params_t params = {(int)it->n, (int)it->h,        (int)it->w,     (int)it->c,      (int)it->k,
                            (int)it->r, (int)it->stride_h, (int)it->pad_h, (int)conv_p(it), (int)conv_q(it)};
  return params;
}

#endif
