/* OpenGL for programs that make their own calls in Sparkle's context. Prototypes come from the system's headers; programs link
 * with -lGL. */
#ifndef GL_H
#define GL_H

#define GL_GLEXT_PROTOTYPES
#include <GL/gl.h>
#include <GL/glext.h>

#include "check.h"

#define NO_GL_ERROR()                                     \
  do {                                                    \
    GLenum error_ = glGetError();                         \
    CHECK(error_ == GL_NO_ERROR, "GL error %#x", error_); \
  } while (0)

#endif
