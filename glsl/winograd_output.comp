// Winograd F(M x M, 3 x 3), last pass: transforms products back from the frequency domain, Y = A^T m A, with bias, ReLU
// and epilogue.
//
//     products [frequency][row][tile]  --->  output [n][row][P][Q]      a thread: M x M outputs of one channel
//
// An output that is not finite is summed again by the definition, from the image and the unpacked weights. So an output is
// finite exactly if the sum of the definition is, and otherwise NaN or infinite like that sum. No output is missed, for two
// reasons.
//
// First, a result of a value that is not finite is not finite either. The passes only add and multiply, and a sum or a product
// with an infinity is infinite or NaN, even the product with 0. The same holds for intermediate overflow.
//
// Second, each output depends on every pixel and every weight of its definition. Along one axis, for F(4): frequency 0 reads
// pixels 0 to 4 of the window, frequencies 1 to 4 read pixels 1 to 4, and frequency 5 reads pixels 1 to 5. Output 0 is the sum
// of frequencies 0 to 4, outputs 1 and 2 of frequencies 1 to 4, output 3 of frequencies 1 to 5. Pixel 0, which only output 0
// needs, reaches it through frequency 0. Pixel 5 reaches output 3 through frequency 5. The other pixels reach every output. All
// three weights of a line are in frequencies 1 to 4, which contribute to all outputs. F(2) is similar: pixel 0 is in frequency
// 0 alone, pixel 3 in frequency 3 alone, and the others are in frequencies 1 and 2.

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float products[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weights[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { STORE output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };
layout(std430, binding = 4) readonly buffer ImageBuffer { float image_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

float finish(float sum, int row, int address) {
#if BIAS
    sum += bias_data[row];
#endif
#if RELU
    sum = relu(sum);
#endif
#ifdef FUSED
    sum = FUSED(sum, row, address);
#endif
    return sum;
}

float pixel(int image, int y, int x) {
    bool inside = uint(y) < uint(H) && uint(x) < uint(W);
    float value = image_data[inside ? image + y * IMAGE_ROW + x * IMAGE_PIXEL : 0];
    return inside ? value : PADDING;
}

// M neighbouring pixels, for each of the kernel's columns.
#if M == 4
#define LINE vec4
#else
#define LINE vec2
#endif
struct Pixels {
    LINE first, second, third;
};

Pixels pixels(int image, int y, int x) {
    float p0 = pixel(image, y, x), p1 = pixel(image, y, x + 1), p2 = pixel(image, y, x + 2), p3 = pixel(image, y, x + 3);
#if M == 4
    float p4 = pixel(image, y, x + 4), p5 = pixel(image, y, x + 5);
    return Pixels(vec4(p0, p1, p2, p3), vec4(p1, p2, p3, p4), vec4(p2, p3, p4, p5));
#else
    return Pixels(vec2(p0, p1), vec2(p1, p2), vec2(p2, p3));
#endif
}

// A row of a kernel.
vec3 taps(int kernel) {
    return vec3(weights[kernel], weights[kernel + KERNEL_S], weights[kernel + 2 * KERNEL_S]);
}

// Sums M x M outputs by the definition, from the pixel at (y, x) on, each in the order of conv_direct. Only the channels are a
// loop, because drivers may limit iterations.
LINE[M] direct(int n, int row, int y, int x) {
    LINE sums[M];
    for (int i = 0; i < M; ++i) sums[i] = LINE(0.0);
    // The compiler must not unroll this loop. It does not know that `count` is never 0.
    int channels = count > 0u ? CHANNELS : 0;
    for (int c = 0; c < channels; ++c) {
        int image = n * (CHANNELS * H * W) + c * IMAGE_CHANNEL;
        int kernel = row * KERNEL_K + c * KERNEL_C;
        vec3 top = taps(kernel), middle = taps(kernel + KERNEL_R), bottom = taps(kernel + 2 * KERNEL_R);
        Pixels line;
#define READ(r) line = pixels(image, y + r, x);
#define ADD(i, taps)                      \
    sums[i] += taps.x * line.first;       \
    sums[i] += taps.y * line.second;      \
    sums[i] += taps.z * line.third;
        READ(0) ADD(0, top)
        READ(1) ADD(1, top) ADD(0, middle)
#if M == 4
        READ(2) ADD(2, top) ADD(1, middle) ADD(0, bottom)
        READ(3) ADD(3, top) ADD(2, middle) ADD(1, bottom)
        READ(4) ADD(3, middle) ADD(2, bottom)
        READ(5) ADD(3, bottom)
#else
        READ(2) ADD(1, middle) ADD(0, bottom)
        READ(3) ADD(1, bottom)
#endif
    }
    return sums;
}

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    int index = int((first + number) * 64u + gl_LocalInvocationID.x);
    if (number >= count || index >= ROWS * TILES_PADDED) return;
    int tile = index % TILES_PADDED;
    int row = index / TILES_PADDED;
    if (tile >= TILES) return;
    int n = tile / (TILES_DOWN * TILES_ACROSS);
    int p = tile / TILES_ACROSS % TILES_DOWN * M;
    int q = tile % TILES_ACROSS * M;

    float half_way[M * ALPHA];
    for (int j = 0; j < ALPHA; ++j) {
        float column[ALPHA];
        for (int i = 0; i < ALPHA; ++i) {
            column[i] = products[((i * ALPHA + j) * ROWS + row) * TILES_PADDED + tile];
        }
        float narrow[M] = from_frequency(column);
        for (int i = 0; i < M; ++i) half_way[i * ALPHA + j] = narrow[i];
    }
    // One bit for each output that is not finite.
    uint broken = 0u;
    for (int i = 0; i < M; ++i) {
        if (P % M != 0 && p + i >= P) continue;
        float wide[ALPHA];
        for (int j = 0; j < ALPHA; ++j) wide[j] = half_way[i * ALPHA + j];
        float line[M] = from_frequency(wide);
        for (int j = 0; j < M; ++j) {
            if ((floatBitsToUint(line[j]) & 0x7f800000u) == 0x7f800000u) broken |= 1u << (i * M + j);
        }
        int address = n * (ROWS * P * Q) + row * OUT_CHANNEL + ((p + i) * Q + q) * OUT_PIXEL;
#if STORED == 4
        output_data[address / 4] = vec4(finish(line[0], row, address), finish(line[1], row, address + 1),
                                        finish(line[2], row, address + 2), finish(line[3], row, address + 3));
#elif STORED == 2
        for (int j = 0; j < M; j += 2) {
            if (Q % M != 0 && q + j >= Q) continue;
            output_data[(address + j) / 2] = vec2(finish(line[j], row, address + j),
                                                  finish(line[j + 1], row, address + j + 1));
        }
#else
        for (int j = 0; j < M; ++j) {
            int at = address + j * OUT_PIXEL;
            if (Q % M == 0 || q + j < Q) output_data[at] = finish(line[j], row, at);
        }
#endif
    }
    if (broken == 0u) return;
    LINE sums[M] = direct(n, row, p - PAD_H, q - PAD_W);
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < M; ++j) {
            if ((broken >> (i * M + j) & 1u) == 0u || (Q % M != 0 && q + j >= Q)) continue;
            int address = n * (ROWS * P * Q) + row * OUT_CHANNEL + ((p + i) * Q + q + j) * OUT_PIXEL;
#if STORED > 1
            output_data[address / STORED][address % STORED] = finish(sums[i][j], row, address);
#else
            output_data[address] = finish(sums[i][j], row, address);
#endif
        }
    }
}
