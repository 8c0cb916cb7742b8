// Winograd F(M x M, 3 x 3), once per plan: transforms weights, U = G g G^T, in float64. The layout is that of
// pack_weights.comp, with frequencies as groups.
//
//     weights [row][c][3][3]  --->  U [frequency][c][row]      a thread: one kernel

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float weights[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float transformed[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    int index = int((first + number) * 64u + gl_LocalInvocationID.x);
    if (number >= count || index >= DEPTH_PADDED * ROWS_PADDED) return;
    int row = index % ROWS_PADDED;
    int c = index / ROWS_PADDED;
    bool exists = row < ROWS && c < CHANNELS;
    double g[9];
    for (int i = 0; i < 9; ++i) g[i] = exists ? double(weights[row * KERNEL_K + c * KERNEL_C + i / 3 * KERNEL_R + i % 3 * KERNEL_S]) : 0.0lf;
    for (int i = 0; i < ALPHA; ++i) {
        dvec3 down = dvec3(dot(G[i], dvec3(g[0], g[3], g[6])), dot(G[i], dvec3(g[1], g[4], g[7])),
                           dot(G[i], dvec3(g[2], g[5], g[8])));
        for (int j = 0; j < ALPHA; ++j) {
            transformed[((i * ALPHA + j) * DEPTH_PADDED + c) * ROWS_PADDED + row] = float(dot(G[j], down));
        }
    }
}
