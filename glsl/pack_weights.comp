// Packs weights in the layout of tile.comp: the reduction outside, output channels adjacent, both padded with zeros to whole
// blocks.
//
//     [group][row][c][r][s], or another order  -->  [group][depth][row]       depth: (r, s, c) with c padded to BK, or with TABLE (c, r, s)

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float weights[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float packed_weights[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    int index = int((first + number) * 64u + gl_LocalInvocationID.x);
    if (number >= count || index >= GROUPS * DEPTH_PADDED * ROWS_PADDED) return;
    int row = index % ROWS_PADDED;
    int depth = index / ROWS_PADDED % DEPTH_PADDED;
    int group = index / (ROWS_PADDED * DEPTH_PADDED);
#if TABLE
    int c = depth / (R * S);
    int tap = depth % (R * S);
#else
    int c = depth % CHANNELS_PADDED;
    int tap = depth / CHANNELS_PADDED;
#endif
    bool exists = row < ROWS && c < CHANNELS;
    int at = (group * ROWS + row) * KERNEL_K + c * KERNEL_C + tap / S * KERNEL_R + tap % S * KERNEL_S;
    packed_weights[index] = exists ? weights[at] : 0.0;
}
