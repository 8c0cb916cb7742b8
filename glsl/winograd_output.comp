// Winograd F(M x M, 3 x 3), last pass: out of the frequency domain, Y = A^T m A, with bias and ReLU.
//
//     products [frequency][row][tile]  --->  output [n][row][P][Q]      a thread: M x M outputs of one channel
//
// An output that is not finite here is summed again by the definition, from the image and the weights as they came. So outputs are finite
// where the definition's sum is, and NaN or infinite where that is. No output slips through, for two reasons.
//
// Once a value is not finite, whatever is computed from it is not finite either: the passes only add and multiply, and a sum or a product
// with an infinity is infinite or NaN, also the product with 0. That holds for what overflows on the way, too.
//
// And each output is computed from every pixel and every weight that its definition names. Along one axis, for F(4): frequency 0 sees pixels
// 0 to 4 of the window, 1 to 4 see pixels 1 to 4, 5 sees pixels 1 to 5; output 0 is made of frequencies 0 to 4, outputs 1 and 2 of 1 to 4,
// output 3 of 1 to 5. Pixel 0, which only output 0 sees by the definition, reaches it through frequency 0; pixel 5 reaches output 3
// through frequency 5; the others reach every output. All three weights of a line are in frequencies 1 to 4, which all outputs
// are made of. F(2) is alike: pixels 0 and 3 have frequencies 0 and 3 to themselves, the others are in 1 and 2.

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float products[]; };
layout(std430, binding = 1) readonly buffer WeightBuffer { float weights[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { STORE output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };
layout(std430, binding = 4) readonly buffer ImageBuffer { float image_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

float finish(float sum, int row) {
#if BIAS
    sum += bias_data[row];
#endif
#if RELU
    sum = relu(sum);
#endif
    return sum;
}

#if M == 4
#define LINE vec4
#define EACH(value) vec4(value(0), value(1), value(2), value(3))
#else
#define LINE vec2
#define EACH(value) vec2(value(0), value(1))
#endif

float pixel(int image, int y, int x) {
    bool inside = uint(y) < uint(H) && uint(x) < uint(W);
    float value = image_data[inside ? image + y * W + x : 0];
    return inside ? value : PADDING;
}

// M pixels side by side.
LINE pixels(int image, int y, int x) {
#define PIXEL(j) pixel(image, y, x + j)
    return EACH(PIXEL);
}

// `sum`, and what one line of a kernel adds to M outputs side by side.
LINE add_line(LINE sum, int image, int y, int x, int kernel) {
    sum += weights[kernel] * pixels(image, y, x);
    sum += weights[kernel + 1] * pixels(image, y, x + 1);
    return sum + weights[kernel + 2] * pixels(image, y, x + 2);
}

// M outputs side by side by the definition, from the pixel at (y, x) on, in the order of conv_direct.
LINE direct(int n, int row, int y, int x) {
    LINE sum = LINE(0.0);
    // The compiler is not to unroll this: it is not told that `count` is never 0.
    int channels = count > 0u ? CHANNELS : 0;
    for (int c = 0; c < channels; ++c) {
        int image = (n * CHANNELS + c) * (H * W);
        int kernel = (row * CHANNELS + c) * 9;
        sum = add_line(sum, image, y, x, kernel);
        sum = add_line(sum, image, y + 1, x, kernel + 3);
        sum = add_line(sum, image, y + 2, x, kernel + 6);
    }
    return sum;
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
    // Outputs that are not finite, a bit each.
    uint broken = 0u;
    for (int i = 0; i < M; ++i) {
        if (P % M != 0 && p + i >= P) continue;
        float wide[ALPHA];
        for (int j = 0; j < ALPHA; ++j) wide[j] = half_way[i * ALPHA + j];
        float line[M] = from_frequency(wide);
        for (int j = 0; j < M; ++j) {
            if ((floatBitsToUint(line[j]) & 0x7f800000u) == 0x7f800000u) broken |= 1u << (i * M + j);
        }
        int address = ((n * ROWS + row) * P + p + i) * Q + q;
#if STORED == 4
        output_data[address / 4] = vec4(finish(line[0], row), finish(line[1], row), finish(line[2], row),
                                        finish(line[3], row));
#elif STORED == 2
        for (int j = 0; j < M; j += 2) {
            if (Q % M == 0 || q + j < Q) output_data[(address + j) / 2] = vec2(finish(line[j], row), finish(line[j + 1], row));
        }
#else
        for (int j = 0; j < M; ++j) {
            if (Q % M == 0 || q + j < Q) output_data[address + j] = finish(line[j], row);
        }
#endif
    }
    if (broken == 0u) return;
    int rows = count > 0u ? M : 0;
    for (int i = 0; i < rows; ++i) {
        uint of_row = broken >> (i * M) & ((1u << M) - 1u);
        if (of_row == 0u) continue;
        LINE line = direct(n, row, p + i - PAD_H, q - PAD_W);
        for (int j = 0; j < M; ++j) {
            if ((of_row >> j & 1u) == 0u || (Q % M != 0 && q + j >= Q)) continue;
            int address = ((n * ROWS + row) * P + p + i) * Q + q + j;
#if STORED > 1
            output_data[address / STORED][address % STORED] = finish(line[j], row);
#else
            output_data[address] = finish(line[j], row);
#endif
        }
    }
}
