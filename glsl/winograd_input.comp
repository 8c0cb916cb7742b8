// Winograd F(M x M, 3 x 3), first pass: transforms windows of the image to the frequency domain, V = B^T d B.
//
//     image [n][c][H][W]  --->  V [frequency][c][tile]      a thread: one window of one channel; tiles are adjacent
//
//     windows of ALPHA = M + 2, one every M pixels:    |--------|
//                                                          |--------|

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float transformed[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    int index = int((first + number) * 64u + gl_LocalInvocationID.x);
    if (number >= count || index >= CHANNELS * TILES_PADDED) return;
    int tile = index % TILES_PADDED;
    int c = index / TILES_PADDED;
    if (tile >= TILES) return;
    int n = tile / (TILES_DOWN * TILES_ACROSS);
    int y = tile / TILES_ACROSS % TILES_DOWN * M - PAD_H;
    int x = tile % TILES_ACROSS * M - PAD_W;
    int image = n * (CHANNELS * H * W) + c * IMAGE_CHANNEL;

    float window[ALPHA * ALPHA];
    for (int j = 0; j < ALPHA; ++j) {
        float column[ALPHA];
        for (int i = 0; i < ALPHA; ++i) {
            bool valid = uint(y + i) < uint(H) && uint(x + j) < uint(W);
            float value = input_data[valid ? image + (y + i) * IMAGE_ROW + (x + j) * IMAGE_PIXEL : 0];
            column[i] = valid ? value : 0.0;
        }
        column = to_frequency(column);
        for (int i = 0; i < ALPHA; ++i) window[i * ALPHA + j] = column[i];
    }
    for (int i = 0; i < ALPHA; ++i) {
        float row[ALPHA];
        for (int j = 0; j < ALPHA; ++j) row[j] = window[i * ALPHA + j];
        row = to_frequency(row);
        for (int j = 0; j < ALPHA; ++j) {
            transformed[((i * ALPHA + j) * CHANNELS + c) * TILES_PADDED + tile] = row[j];
        }
    }
}
