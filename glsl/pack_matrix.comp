// Packs op(A), with any strides, in the layout of the weights of tile.comp: the reduction outside, rows adjacent, padded with
// zeros.
//
//     element (row, depth) at row*ROW_STRIDE + depth*DEPTH_STRIDE  -->  [depth][row]
//
// Squares of 32 x 32 are transposed in shared memory, so that both matrices are accessed along their contiguous dimension.

layout(local_size_x = 32, local_size_y = 8) in;

layout(std430, binding = 0) readonly buffer InputBuffer { float matrix[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float packed_matrix[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

// One more column puts the elements of a column into different banks.
shared float square[32][33];

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    if (number >= count) return;
    int at = int(first + number);
    int row0 = at % SQUARES_ACROSS * 32;
    int depth0 = at / SQUARES_ACROSS * 32;
    int x = int(gl_LocalInvocationID.x);
    int y = int(gl_LocalInvocationID.y);
    for (int i = y; i < 32; i += 8) {
        // Along the contiguous index.
        int row = row0 + (DEPTH_STRIDE == 1 ? i : x);
        int depth = depth0 + (DEPTH_STRIDE == 1 ? x : i);
        bool exists = row < ROWS && depth < DEPTH;
        float value = matrix[exists ? row * ROW_STRIDE + depth * DEPTH_STRIDE : 0];
        square[depth - depth0][row - row0] = exists ? value : 0.0;
    }
    barrier();
    for (int i = y; i < 32; i += 8) {
        if (depth0 + i < DEPTH_PADDED && row0 + x < ROWS_PADDED) {
            packed_matrix[(depth0 + i) * ROWS_PADDED + row0 + x] = square[i][x];
        }
    }
}
