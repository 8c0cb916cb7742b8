// Writes the im2col matrix of a batch whole, [n][channel][tap][pixel]: for `sparkle patterns` alone. An invocation writes
// STORED neighbouring pixels of a row of the matrix.

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float input_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { STORE output_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

const int ALL = GROUPS * CHANNELS;
const int UNITS = P * Q / STORED;

float pixel(int n, int channel, int tap, int at) {
    int y = at / Q * STRIDE_H - PAD_H + tap / S * DILATION_H;
    int x = at % Q * STRIDE_W - PAD_W + tap % S * DILATION_W;
    bool inside = uint(y) < uint(H) && uint(x) < uint(W);
    float value = input_data[inside ? n * IMAGE_STRIDE + channel * CHANNEL_STRIDE + y * IMAGE_ROW + x * IMAGE_PIXEL : 0];
    return inside ? value : 0.0;
}

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    if (number >= count) return;
    int unit = int(first + number) * 64 + int(gl_LocalInvocationID.x);
    if (unit >= N * ALL * R * S * UNITS) return;
    int at = unit % UNITS * STORED;
    int tap = unit / UNITS % (R * S);
    int channel = unit / (UNITS * R * S) % ALL;
    int n = unit / (UNITS * R * S * ALL);
#if STORED == 4
    vec4 value;
    for (int e = 0; e < 4; ++e) value[e] = pixel(n, channel, tap, at + e);
    output_data[unit] = value;
#else
    output_data[unit] = pixel(n, channel, tap, at);
#endif
}
