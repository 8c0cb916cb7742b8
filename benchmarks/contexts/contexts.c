/* Measures how upload, compute and download in three contexts of one share group slow each other down. It does not use Sparkle.
 *
 *     gcc -O2 -std=gnu11 -Wall -Wextra -o contexts contexts.c -lEGL -lpthread      (headers: libegl-dev, libgl-dev)
 *     ./contexts [name=value ...]
 *
 * Batches circulate in slots, like in a pipeline whose steps the host orders: a copy to the device, a kernel of kernel_us microseconds,
 * and a copy back. Each step has a context and a thread of its own, which polls its fences. For each step the program prints the
 * wall time per batch, how long a batch was in flight, and how long the thread spent in each kind of call. It compares what comes back
 * with what was sent.
 *
 *     slots=8 mib=12.25 kernel_us=700 seconds=0.3 look_us=10
 *     kernels=8 copies=8   the most kernels and copies in flight
 *     stamps=1             timestamps around kernels
 *     uses=rw              whether a kernel reads (r) and writes (w) its slot; n: neither
 *     writes=block         how it writes: through a block; a pointer (GL_NV_shader_buffer_store), which the driver does not track; an image
 *     copy=bound           glCopyBufferSubData; named: glCopyNamedBufferSubData
 *     behind=none          what follows a kernel: unbind its buffers; touch the output with a copy of 16 bytes; twin: copy all of it to a
 *                          second buffer, from which it is downloaded; into, clear: write 16 bytes after the output with
 *                          glCopyBufferSubData, glClearBufferSubData
 *     before=none          how a copy waits for the previous step: wait (glWaitSync), look (glClientWaitSync)
 *     computing=1          contexts that compute; 2: they alternate, and each downloads its own results
 *     pairs=slots          how many slots' buffers the copies use, if kernels use none
 *     log=0                how many of the last signalled fences to print
 *     odd=0                1: insert a copy of odd_kib before the first download after a pause, if its number is even otherwise
 *     odd_kib=1024
 *     free=0 late_us=0     1: no step waits for another; copies back start late_us later
 *     tokens=64 then=0 then_ms=80   the most batches in flight; after then_ms it becomes `then`
 *     window_ms=0          print the time per batch for each window of this length
 *     fence_us=0           how long after a copy its fence is submitted
 *     up=1 down=1          whether to copy in that direction
 *     priority=none        contexts with a high priority: compute, copies; the others get a low one
 */
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/glcorearb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FUNCTIONS(F) \
    F(PFNGLATTACHSHADERPROC, glAttachShader) F(PFNGLBINDBUFFERPROC, glBindBuffer) F(PFNGLBINDBUFFERBASEPROC, glBindBufferBase) \
    F(PFNGLBINDIMAGETEXTUREPROC, glBindImageTexture) F(PFNGLBINDTEXTUREPROC, glBindTexture) F(PFNGLGENTEXTURESPROC, glGenTextures) \
    F(PFNGLTEXBUFFERPROC, glTexBuffer) F(PFNGLBUFFERSTORAGEPROC, glBufferStorage) \
    F(PFNGLCLEARBUFFERSUBDATAPROC, glClearBufferSubData) F(PFNGLCLIENTWAITSYNCPROC, glClientWaitSync) F(PFNGLCOMPILESHADERPROC, glCompileShader) \
    F(PFNGLCOPYBUFFERSUBDATAPROC, glCopyBufferSubData) F(PFNGLCOPYNAMEDBUFFERSUBDATAPROC, glCopyNamedBufferSubData) \
    F(PFNGLCREATEPROGRAMPROC, glCreateProgram) F(PFNGLCREATESHADERPROC, glCreateShader) F(PFNGLDELETESYNCPROC, glDeleteSync) \
    F(PFNGLDISPATCHCOMPUTEPROC, glDispatchCompute) F(PFNGLFENCESYNCPROC, glFenceSync) F(PFNGLFINISHPROC, glFinish) \
    F(PFNGLFLUSHPROC, glFlush) F(PFNGLGENBUFFERSPROC, glGenBuffers) F(PFNGLGENQUERIESPROC, glGenQueries) \
    F(PFNGLGETSHADERINFOLOGPROC, glGetShaderInfoLog) F(PFNGLGETERRORPROC, glGetError) F(PFNGLGETPROGRAMIVPROC, glGetProgramiv) F(PFNGLGETQUERYOBJECTUI64VPROC, glGetQueryObjectui64v) \
    F(PFNGLGETSTRINGPROC, glGetString) F(PFNGLLINKPROGRAMPROC, glLinkProgram) F(PFNGLMAPBUFFERRANGEPROC, glMapBufferRange) \
    F(PFNGLMEMORYBARRIERPROC, glMemoryBarrier) F(PFNGLQUERYCOUNTERPROC, glQueryCounter) F(PFNGLSHADERSOURCEPROC, glShaderSource) \
    F(PFNGLUNIFORM1IPROC, glUniform1i) F(PFNGLUSEPROGRAMPROC, glUseProgram) F(PFNGLWAITSYNCPROC, glWaitSync)
/* Of GL_NV_shader_buffer_load. */
typedef void (APIENTRYP make_resident)(GLuint, GLenum);
typedef void (APIENTRYP get_address)(GLuint, GLenum, GLuint64 *);
typedef void (APIENTRYP set_address)(GLint, GLuint64);
#define OF_POINTERS(F) F(make_resident, glMakeNamedBufferResidentNV) F(get_address, glGetNamedBufferParameterui64vNV) F(set_address, glUniformui64NV)
#define DECLARE(type, name) static type name;
FUNCTIONS(DECLARE)
OF_POINTERS(DECLARE)

enum { UP, COMPUTE, DOWN, STEPS, MAX_SLOTS = 64, GROUPS = 1056, EXACT = 4096 };
enum { IN_BIND, IN_WORK, IN_STAMP, IN_BARRIER, IN_FENCE, IN_FLUSH, IN_LOOK, KINDS };
static const char *const step_names[STEPS] = {"upload", "compute", "download"};
static const char *const kind_names[KINDS] = {"bind", "work", "stamps", "barrier", "fence", "flush", "looks"};

static struct { const char *name, *value; } options[] = {
    {"slots", "8"}, {"mib", "12.25"}, {"kernel_us", "700"}, {"seconds", "0.3"}, {"look_us", "10"}, {"kernels", "8"}, {"copies", "8"},
    {"stamps", "1"}, {"uses", "rw"}, {"writes", "block"}, {"copy", "bound"}, {"behind", "none"}, {"before", "none"},
    {"computing", "1"}, {"odd", "0"}, {"odd_kib", "1024"},
    {"free", "0"}, {"late_us", "0"}, {"tokens", "64"}, {"then", "0"}, {"then_ms", "80"}, {"window_ms", "0"}, {"fence_us", "0"},
    {"pairs", "64"}, {"log", "0"}, {"up", "1"}, {"down", "1"}, {"priority", "none"},
};

static const char *option(const char *name) {
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (!strcmp(options[i].name, name)) return options[i].value;
    abort();
}

static int is(const char *name, const char *value) { return !strcmp(option(name), value); }

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

struct slot {
    GLuint host_in, host_out, in, out, twin, image;
    GLuint64 address;
    float *input, *output;
    GLsync fences[STEPS];
};

static struct slot slots[MAX_SLOTS];
static GLuint program, own_in, own_out, odd_from, odd_to;
static int slot_count, elements, loops, groups = GROUPS;
static double started = 1e30;
static EGLDisplay display;
static EGLContext root;
static atomic_int ready, stop, issued[STEPS], landed[STEPS];
static struct tally { double calls[KINDS], latency, gap, kernel; int done, gaps, wrong; } tallies[STEPS];
static struct { int step, batch; double at; } seen[1 << 16];
static atomic_int seen_count;

#define IN(kind, call) do { double begin_ = now(); call; tally->calls[kind] += now() - begin_; } while (0)

static EGLContext new_context(int computes) {
    const EGLint first = is("priority", computes ? "compute" : "copies") ? EGL_CONTEXT_PRIORITY_HIGH_IMG : EGL_CONTEXT_PRIORITY_LOW_IMG;
    const EGLint attributes[] = {EGL_CONTEXT_MAJOR_VERSION, 4, EGL_CONTEXT_MINOR_VERSION, 5,
                                 is("priority", "none") ? EGL_NONE : EGL_CONTEXT_PRIORITY_LEVEL_IMG, first, EGL_NONE};
    eglBindAPI(EGL_OPENGL_API);
    EGLContext context = eglCreateContext(display, NULL, root, attributes);
    if (!context || !eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, context)) {
        fprintf(stderr, "no OpenGL 4.5 context\n");
        exit(1);
    }
    return context;
}

static void copy(struct tally *tally, GLuint from, GLuint to, size_t bytes) {
    if (is("copy", "named")) {
        IN(IN_WORK, glCopyNamedBufferSubData(from, to, 0, 0, bytes));
        return;
    }
    IN(IN_BIND, glBindBuffer(GL_COPY_READ_BUFFER, from); glBindBuffer(GL_COPY_WRITE_BUFFER, to));
    IN(IN_WORK, glCopyBufferSubData(GL_COPY_READ_BUFFER, GL_COPY_WRITE_BUFFER, 0, 0, bytes));
}

static void kernel(struct tally *tally, const struct slot *slot, const GLuint stamps[2]) {
    const char *uses = option("uses");
    GLuint out = strchr(uses, 'w') ? slot->out : own_out, in = strchr(uses, 'r') ? slot->in : own_in;
    if (is("stamps", "1")) IN(IN_STAMP, glQueryCounter(stamps[0], GL_TIMESTAMP));
    if (is("writes", "block")) IN(IN_BIND, glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 0, out));
    if (is("writes", "pointer")) IN(IN_BIND, glUniformui64NV(1, slot->address));
    if (is("writes", "image")) IN(IN_BIND, glBindImageTexture(0, slot->image, 0, GL_FALSE, 0, GL_WRITE_ONLY, GL_R32F));
    IN(IN_BIND, glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 1, in));
    IN(IN_WORK, glDispatchCompute(groups, 1, 1));
    IN(IN_BARRIER, glMemoryBarrier(GL_SHADER_STORAGE_BARRIER_BIT | GL_BUFFER_UPDATE_BARRIER_BIT));
    if (is("behind", "unbind"))
        IN(IN_BIND, glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 0, 0); glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 1, 0));
    const GLintptr end = 4 * (GLintptr)elements;
    if (is("behind", "into") || is("behind", "clear"))
        IN(IN_BIND, glBindBuffer(GL_COPY_READ_BUFFER, own_in); glBindBuffer(GL_COPY_WRITE_BUFFER, out));
    if (is("behind", "into")) IN(IN_WORK, glCopyBufferSubData(GL_COPY_READ_BUFFER, GL_COPY_WRITE_BUFFER, 0, end, 16));
    if (is("behind", "clear")) IN(IN_WORK, glClearBufferSubData(GL_COPY_WRITE_BUFFER, GL_R32UI, end, 16, GL_RED_INTEGER, GL_UNSIGNED_INT, NULL));
    if (is("behind", "touch")) copy(tally, out, slot->twin, 16);
    if (is("behind", "twin")) copy(tally, out, slot->twin, 4 * (size_t)elements);
    if (is("stamps", "1")) IN(IN_STAMP, glQueryCounter(stamps[1], GL_TIMESTAMP));
}

/* Completed batches, in order. If two contexts compute, landed[COMPUTE] counts the even ones and landed[DOWN] the odd. */
static int back(void) {
    int even = atomic_load(&landed[COMPUTE]), odd = atomic_load(&landed[DOWN]);
    if (is("computing", "1")) return odd;
    return even > odd ? 2 * odd + 1 : 2 * even;
}

/* The batch that is a step's n-th. */
static int batch(int step, int n) { return step == UP || is("computing", "1") ? n : 2 * n + (step == DOWN); }

/* Whether the next batch may start a step: its slot is free, or its previous step is complete. */
static int may_begin(int step) {
    int next = batch(step, atomic_load(&issued[step]));
    if (is("free", "1")) return 1;
    if (step == UP) {
        int tokens = atoi(option("tokens")), then = atoi(option("then"));
        if (then && now() - started > 1e-3 * atof(option("then_ms"))) tokens = then;
        return next < back() + (tokens < slot_count ? tokens : slot_count);
    }
    return next < atomic_load(&landed[is("computing", "1") ? step - 1 : UP]);
}

/* Gives a context access to a slot's output by its address, or as an image. */
static void see(struct slot *slot) {
    if (is("writes", "pointer")) {
        glMakeNamedBufferResidentNV(slot->out, GL_READ_WRITE);
        glGetNamedBufferParameterui64vNV(slot->out, 0x8F1D /* GL_BUFFER_GPU_ADDRESS_NV */, &slot->address);
    } else if (is("writes", "image") && !slot->image) {
        glGenTextures(1, &slot->image);
        glBindTexture(GL_TEXTURE_BUFFER, slot->image);
        glTexBuffer(GL_TEXTURE_BUFFER, GL_R32F, slot->out);
    }
}

static void *serve(void *argument) {
    const int step = (int)(size_t)argument;
    struct tally *tally = &tallies[step];
    const int computes = step == COMPUTE || (step == DOWN && is("computing", "2")), downloads = step == DOWN || is("computing", "2");
    EGLContext context = new_context(computes);
    const int most = atoi(option(computes ? "kernels" : "copies"));
    const double look = 1e-6 * atof(option("look_us")), later = computes ? 0 : 1e-6 * atof(option("fence_us"));
    int fenced = 0, rested = 1;
    const size_t bytes = 4 * (size_t)elements;
    double began[MAX_SLOTS], looked = 0;
    GLuint stamps[MAX_SLOTS][2];
    GLuint64 end = 0;
    glGenQueries(2 * MAX_SLOTS, stamps[0]);
    glUseProgram(program);
    glUniform1i(0, loops);
    for (struct slot *slot = slots; computes && slot < slots + slot_count; slot++) see(slot);
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) <= STEPS) { }
    if (step == DOWN) usleep((useconds_t)atof(option("late_us")));
    while (!atomic_load(&stop)) {
        if (computes && atomic_load(&issued[UP]) == atomic_load(&landed[DOWN])) rested = 1;
        int first = batch(step, atomic_load(&landed[step])), next = batch(step, atomic_load(&issued[step]));
        if (atomic_load(&issued[step]) - atomic_load(&landed[step]) < most && may_begin(step)) {
            struct slot *slot = &slots[next % slot_count];
            struct slot *place = &slots[next % slot_count % atoi(option("pairs"))];
            GLsync before = slot->fences[step == UP ? DOWN : step - 1];
            began[next % slot_count] = now();
            if (!computes && before && is("before", "wait")) IN(IN_WORK, glWaitSync(before, 0, GL_TIMEOUT_IGNORED));
            if (!computes && before && is("before", "look")) IN(IN_LOOK, glClientWaitSync(before, 0, 0));
            if (step == UP) slot->input[5] = slot->input[EXACT - 1] = (float)next;
            if (step == UP && is("up", "1")) copy(tally, place->host_in, place->in, bytes);
            if (computes) kernel(tally, slot, stamps[next % slot_count]);
            if (step != UP && downloads && is("down", "1")) copy(tally, is("behind", "twin") ? slot->twin : place->out, place->host_out, bytes);
            if (later > 0) IN(IN_FLUSH, glFlush());
            atomic_fetch_add(&issued[step], 1);
        } else if (fenced < atomic_load(&issued[step]) && now() - began[batch(step, fenced) % slot_count] >= later) {
            GLsync *fence = &slots[batch(step, fenced++) % slot_count].fences[step], old = *fence;
            IN(IN_FENCE, *fence = glFenceSync(GL_SYNC_GPU_COMMANDS_COMPLETE, 0); if (old) glDeleteSync(old));
            IN(IN_FLUSH, glFlush());
        } else if (atomic_load(&landed[step]) < fenced && now() - looked >= look) {
            const struct slot *slot = &slots[first % slot_count];
            GLenum status;
            IN(IN_LOOK, status = glClientWaitSync(slot->fences[step], 0, 0));
            looked = now();
            if (status != GL_ALREADY_SIGNALED && status != GL_CONDITION_SATISFIED) continue;
            int entry = atomic_fetch_add(&seen_count, 1);
            if (entry < 1 << 16) seen[entry].step = step, seen[entry].batch = first, seen[entry].at = looked;
            tally->latency += looked - began[first % slot_count];
            if (computes && is("stamps", "1")) {
                GLuint64 times[2];
                IN(IN_STAMP, for (int i = 0; i < 2; i++) glGetQueryObjectui64v(stamps[first % slot_count][i], GL_QUERY_RESULT, &times[i]));
                tally->kernel += 1e-9 * (double)(times[1] - times[0]);
                if (end) tally->gap += 1e-9 * (double)(times[0] - end), tally->gaps++;
                end = times[1];
            }
            if (step != UP && downloads && is("uses", "rw") && is("up", "1") && is("down", "1"))
                tally->wrong += is("free", "0") && (slot->output[5] != (float)first || slot->output[EXACT - 1] != (float)first);
            tally->done++;
            if (computes && rested && is("odd", "1")) {
                rested = 0;
                if ((atomic_load(&issued[UP]) - atomic_load(&landed[DOWN])) % 2 == 0) {
                    copy(tally, odd_from, odd_to, 1024 * (size_t)atof(option("odd_kib")));
                    glFlush();
                }
            }
            atomic_fetch_add(&landed[step], 1);
        }
    }
    glFinish();
    if (glGetError()) fprintf(stderr, "%s: a GL error\n", step_names[step]);
    eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    eglDestroyContext(display, context);
    return NULL;
}

static GLuint new_buffer(size_t bytes, float **address) {
    const GLbitfield flags = GL_MAP_READ_BIT | GL_MAP_WRITE_BIT | GL_MAP_PERSISTENT_BIT | GL_MAP_COHERENT_BIT;
    GLuint buffer;
    glGenBuffers(1, &buffer);
    glBindBuffer(GL_COPY_WRITE_BUFFER, buffer);
    glBufferStorage(GL_COPY_WRITE_BUFFER, bytes, NULL, address ? flags : 0);
    if (address) memset(*address = glMapBufferRange(GL_COPY_WRITE_BUFFER, 0, bytes, flags), 0, bytes);
    return buffer;
}

static void open_display(void) {
    PFNEGLQUERYDEVICESEXTPROC query = (PFNEGLQUERYDEVICESEXTPROC)eglGetProcAddress("eglQueryDevicesEXT");
    PFNEGLGETPLATFORMDISPLAYEXTPROC get = (PFNEGLGETPLATFORMDISPLAYEXTPROC)eglGetProcAddress("eglGetPlatformDisplayEXT");
    EGLDeviceEXT devices[16];
    EGLint count = 0;
    if (query && get) query(16, devices, &count);
    for (int i = 0; i < count; i++) {
        display = get(EGL_PLATFORM_DEVICE_EXT, devices[i], NULL);
        if (eglInitialize(display, NULL, NULL)) return;
    }
    fprintf(stderr, "no EGL device\n");
    exit(1);
}

/* A kernel that takes the given microseconds. */
static void make_program(double wanted) {
    const char *const out = is("writes", "pointer") ? "layout(location = 1) uniform float *a;\n"
        : is("writes", "image") ? "layout(r32f, binding = 0) writeonly uniform imageBuffer a;\n"
        : "layout(std430, binding = 0) writeonly buffer Out { float a[]; };\n";
    const char *const put = is("writes", "image") ? "void put(uint k, float x) { imageStore(a, int(k), vec4(x)); }\n"
        : "void put(uint k, float x) { a[k] = x; }\n";
    const char *const extensions = is("writes", "pointer")
        ? "#extension GL_NV_gpu_shader5 : require\n#extension GL_NV_shader_buffer_load : require\n#extension GL_NV_shader_buffer_store : require\n" : "";
    const char *source[] = {"#version 430\n", extensions, out, put,
        "layout(local_size_x = 256) in;\n"
        "layout(location = 0) uniform int loops;\n"
        "layout(std430, binding = 1) readonly buffer In { float b[]; };\n"
        "void main() {\n"
        "    uint first = gl_GlobalInvocationID.x, step = gl_NumWorkGroups.x * 256u;\n"
        "    float x = b[first], y = x + 1.0, z = x + 2.0, w = x + 3.0;\n"
        "    for (int i = 0; i < loops; ++i) { x = x * 1.0001 + y; y = y * 0.9999 + z; z = z * 1.0002 + w; w = w * 0.9998 + x; }\n"
        "    for (uint k = first; k < uint(b.length()); k += step) put(k, k < 4096u ? b[k] : b[k] + x + y + z + w);\n"
        "}\n"};
    GLint linked;
    GLuint shader = glCreateShader(GL_COMPUTE_SHADER);
    glShaderSource(shader, 5, source, NULL);
    glCompileShader(shader);
    program = glCreateProgram();
    glAttachShader(program, shader);
    glLinkProgram(program);
    glGetProgramiv(program, GL_LINK_STATUS, &linked);
    if (!linked) {
        char log[1000] = "";
        glGetShaderInfoLog(shader, sizeof log, NULL, log);
        fprintf(stderr, "the kernel does not link: %s\n", log);
        exit(1);
    }
    glUseProgram(program);
    struct slot own = {.out = own_out};
    see(&own);
    if (is("writes", "pointer")) glUniformui64NV(1, own.address);
    if (is("writes", "image")) glBindImageTexture(0, own.image, 0, GL_FALSE, 0, GL_WRITE_ONLY, GL_R32F);
    glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 0, own_out);
    glBindBufferBase(GL_SHADER_STORAGE_BUFFER, 1, own_in);
    loops = 200;
    for (int round = 0; round < 4; round++) {
        glUniform1i(0, loops);
        glFinish();
        double begin = now();
        for (int i = 0; i < 20; i++) glDispatchCompute(groups, 1, 1), glMemoryBarrier(GL_SHADER_STORAGE_BARRIER_BIT);
        glFinish();
        double us = 1e6 * (now() - begin) / 20;
        if (round == 3) printf("%s, kernel alone: %.0f us\n", (const char *)glGetString(GL_RENDERER), us);
        else loops = (int)(loops * wanted / us) + 1;
    }
}

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        size_t known = 0, all = sizeof options / sizeof *options;
        while (value && known < all && strncmp(options[known].name, arguments[i], value - arguments[i])) known++;
        if (!value || known == all) return fprintf(stderr, "unknown: %s\n", arguments[i]), 2;
        options[known].value = value + 1;
    }
    elements = (int)(atof(option("mib")) * (1 << 18));
    slot_count = atoi(option("slots"));
    if (slot_count < 1 || slot_count > MAX_SLOTS || elements < EXACT) return fprintf(stderr, "slots or mib: out of range\n"), 2;
    open_display();
    root = EGL_NO_CONTEXT;
    root = new_context(0);
#define LOAD(type, name) if (!(name = (type)eglGetProcAddress(#name))) return fprintf(stderr, "no " #name "\n"), 1;
    FUNCTIONS(LOAD)
    if (is("writes", "pointer")) { OF_POINTERS(LOAD) }
    const size_t bytes = 4 * (size_t)elements;
    float *odd;
    odd_from = new_buffer(1024 * (size_t)atof(option("odd_kib")), &odd);
    odd_to = new_buffer(1024 * (size_t)atof(option("odd_kib")), NULL);
    own_in = new_buffer(bytes, NULL);
    own_out = new_buffer(bytes + 16, NULL);
    for (struct slot *slot = slots; slot < slots + slot_count; slot++) {
        slot->host_in = new_buffer(bytes, &slot->input);
        slot->host_out = new_buffer(bytes, &slot->output);
        slot->in = new_buffer(bytes, NULL);
        slot->out = new_buffer(bytes + 16, NULL);
        slot->twin = new_buffer(bytes, NULL);
    }
    make_program(atof(option("kernel_us")));
    pthread_t threads[STEPS];
    for (size_t step = 0; step < STEPS; step++) pthread_create(&threads[step], NULL, serve, (void *)step);
    while (atomic_load(&ready) < STEPS) { }
    atomic_fetch_add(&ready, 1);
    /* A tenth of a second to warm up. The threads keep counting while their figures are read: an error of one batch at most. */
    usleep(100000);
    struct tally before[STEPS], after[STEPS];
    memcpy(before, tallies, sizeof before);
    double begin = started = now();
    usleep((useconds_t)(1e6 * atof(option("seconds"))));
    memcpy(after, tallies, sizeof after);
    double took = now() - begin;
    atomic_store(&stop, 1);
    for (int step = 0; step < STEPS; step++) pthread_join(threads[step], NULL);
    for (int step = 0; step < STEPS; step++) {
        const struct tally *from = &before[step], *to = &after[step];
        int done = to->done - from->done;
        if (!done) { printf("%-9s none\n", step_names[step]); continue; }
        printf("%-9s %7.1f us a batch, %7.1f under way; in calls:", step_names[step], 1e6 * took / done, 1e6 * (to->latency - from->latency) / done);
        for (int kind = 0; kind < KINDS; kind++)
            if (to->calls[kind] > from->calls[kind]) printf(" %s %.0f", kind_names[kind], 1e6 * (to->calls[kind] - from->calls[kind]) / done);
        if (to->gaps > from->gaps)
            printf("; kernels %.0f, between them %.0f", 1e6 * (to->kernel - from->kernel) / done, 1e6 * (to->gap - from->gap) / (to->gaps - from->gaps));
        printf("\n");
    }
    const int logged = atomic_load(&seen_count) < 1 << 16 ? atomic_load(&seen_count) : 1 << 16;
    for (int i = logged > atoi(option("log")) ? logged - atoi(option("log")) : 0; i < logged; i++)
        printf("%c%d %.0f%s", "ucd"[seen[i].step], seen[i].batch, 1e6 * (seen[i].at - begin), i + 1 < logged ? ", " : "\n");
    const double window = 1e-3 * atof(option("window_ms"));
    const int seen_all = atomic_load(&seen_count) < 1 << 16 ? atomic_load(&seen_count) : 1 << 16;
    double end = begin + window;
    for (int i = 0, n = 0; window > 0 && i < seen_all; i++) {
        for (; seen[i].at >= end; end += window, n = 0) printf("%.2f ", n ? 1e3 * window / n : 0.0);
        n += seen[i].step == DOWN && seen[i].at >= begin;
    }
    if (window > 0) printf("ms a batch in each %g ms\n", 1e3 * window);
    int wrong = tallies[COMPUTE].wrong + tallies[DOWN].wrong;
    printf("wrong: %d\n", wrong);
    return wrong > 0;
}
