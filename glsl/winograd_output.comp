// Winograd F(M x M, 3 x 3), last pass: out of the frequency domain, Y = A^T m A, with bias and ReLU.
//
//     products [frequency][row][tile]  --->  output [n][row][P][Q]      a thread: M x M outputs of one channel

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float products[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { STORE output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

float finish(float sum, int row) {
#if BIAS
    sum += bias_data[row];
#endif
#if RELU
    // Not max(sum, 0.0): that may turn NaN into 0 and hide it.
    sum = sum < 0.0 ? 0.0 : sum;
#endif
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
    for (int i = 0; i < M; ++i) {
        if (P % M != 0 && p + i >= P) continue;
        float wide[ALPHA];
        for (int j = 0; j < ALPHA; ++j) wide[j] = half_way[i * ALPHA + j];
        float line[M] = from_frequency(wide);
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
}
