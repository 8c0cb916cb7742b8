!> The five compute kernels of the reference framework as GLSL, with the original bindings and uniforms.
!>
!> | getter                | 0    | 1 | 2 | uniforms  | result                                                     |
!> | --------------------- | ---- | - | - | --------- | ---------------------------------------------------------- |
!> | get_vector_add_shader | x    | y | z | n         | z = x + y                                                  |
!> | get_saxpy_shader      | x    | y |   | n, alpha  | y = alpha x + y                                            |
!> | get_gemm_shader       | A    | B | C | M, N, K   | C = A B, row-major: A is M x K, B is K x N, C is M x N     |
!> | get_reduction_shader  | data |   |   | n, stride | element g becomes the sum of the g-th 256 elements         |
!> | get_complex_shader    | x    | y | z | n         | z = sqrt(x**2 + y**2)                                      |
!>
!> Buffers hold fp32 numbers; uniforms are uint, except alpha. A uniform n of 0, its initial value, means the number of
!> elements of the shortest buffer. Any grid of workgroups computes all elements. `stride` has no effect.
!>
!> `sparkle_gpu_dispatch` launches these kernels and documents their arguments.
module sparkle_gpu_kernels
  implicit none
  private
  public :: get_vector_add_shader, get_saxpy_shader, get_gemm_shader, get_reduction_shader, get_complex_shader

  character(len=1), parameter :: NL = new_line('a')

  !> Flattens the three-dimensional grid: `first` is the index of this invocation, `invocations` their number.
  character(len=*), parameter :: HEAD = &
    '#version 430 core' // NL // &
    'layout(local_size_x = 256) in;' // NL // &
    'uint group() {' // NL // &
    '  return (gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y) * gl_NumWorkGroups.x + gl_WorkGroupID.x;' // NL // &
    '}' // NL // &
    'uint groups() { return gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z; }' // NL // &
    'uint first() { return group() * 256u + gl_LocalInvocationIndex; }' // NL // &
    'uint invocations() { return groups() * 256u; }' // NL

  !> The number of elements: `n`, or that of the shortest buffer.
  character(len=*), parameter :: COUNT = &
    'layout(location = 0) uniform uint n;' // NL // &
    'uint count(int there) { return n == 0u ? uint(there) : min(n, uint(there)); }' // NL

contains

  pure function get_vector_add_shader() result(source)
    character(len=:), allocatable :: source

    source = HEAD // COUNT // &
      'layout(std430, binding = 0) readonly buffer XBuffer { float x[]; };' // NL // &
      'layout(std430, binding = 1) readonly buffer YBuffer { float y[]; };' // NL // &
      'layout(std430, binding = 2) writeonly buffer ZBuffer { float z[]; };' // NL // &
      'void main() {' // NL // &
      '  uint end = count(min(min(x.length(), y.length()), z.length()));' // NL // &
      '  for (uint i = first(); i < end; i += invocations()) z[i] = x[i] + y[i];' // NL // &
      '}' // NL
  end function get_vector_add_shader

  pure function get_saxpy_shader() result(source)
    character(len=:), allocatable :: source

    source = HEAD // COUNT // &
      'layout(location = 1) uniform float alpha;' // NL // &
      'layout(std430, binding = 0) readonly buffer XBuffer { float x[]; };' // NL // &
      'layout(std430, binding = 1) buffer YBuffer { float y[]; };' // NL // &
      'void main() {' // NL // &
      '  uint end = count(min(x.length(), y.length()));' // NL // &
      '  for (uint i = first(); i < end; i += invocations()) y[i] = alpha * x[i] + y[i];' // NL // &
      '}' // NL
  end function get_saxpy_shader

  !> Sums over the indices `from` to `until` - 1 and adds the result to C; if `from` is 0 it overwrites C. `until` 0
  !> means K. So a long reduction can be split into several dispatches.
  pure function get_gemm_shader() result(source)
    character(len=:), allocatable :: source

    source = HEAD // &
      'layout(location = 0) uniform uint M;' // NL // &
      'layout(location = 1) uniform uint N;' // NL // &
      'layout(location = 2) uniform uint K;' // NL // &
      'layout(location = 3) uniform uint from;' // NL // &
      'layout(location = 4) uniform uint until;' // NL // &
      'layout(std430, binding = 0) readonly buffer ABuffer { float A[]; };' // NL // &
      'layout(std430, binding = 1) readonly buffer BBuffer { float B[]; };' // NL // &
      'layout(std430, binding = 2) buffer CBuffer { float C[]; };' // NL // &
      'void main() {' // NL // &
      '  uint end = until == 0u ? K : min(until, K);' // NL // &
      '  for (uint i = first(); i < M * N; i += invocations()) {' // NL // &
      '    uint row = i / N, column = i % N;' // NL // &
      '    float sum = from == 0u ? 0.0 : C[i];' // NL // &
      '    for (uint p = from; p < end; ++p) sum += A[row * K + p] * B[p * N + column];' // NL // &
      '    C[i] = sum;' // NL // &
      '  }' // NL // &
      '}' // NL
  end function get_gemm_shader

  !> In place: a sum overwrites an element of an earlier block. So one workgroup processes all blocks in order.
  pure function get_reduction_shader() result(source)
    character(len=:), allocatable :: source

    source = HEAD // COUNT // &
      'layout(std430, binding = 0) buffer DataBuffer { float data[]; };' // NL // &
      'shared float partial[256];' // NL // &
      'void halve(uint width) {' // NL // &
      '  uint i = gl_LocalInvocationIndex;' // NL // &
      '  if (i < width) partial[i] += partial[i + width];' // NL // &
      '  barrier();' // NL // &
      '}' // NL // &
      'void main() {' // NL // &
      '  if (group() != 0u) return;' // NL // &
      '  uint end = count(data.length());' // NL // &
      '  for (uint block = 0u; block * 256u < end; ++block) {' // NL // &
      '    uint i = block * 256u + gl_LocalInvocationIndex;' // NL // &
      '    partial[gl_LocalInvocationIndex] = i < end ? data[i] : 0.0;' // NL // &
      '    barrier();' // NL // &
      '    halve(128u); halve(64u); halve(32u); halve(16u); halve(8u); halve(4u); halve(2u); halve(1u);' // NL // &
      '    if (gl_LocalInvocationIndex == 0u) data[block] = partial[0];' // NL // &
      '    barrier();' // NL // &
      '  }' // NL // &
      '}' // NL
  end function get_reduction_shader

  pure function get_complex_shader() result(source)
    character(len=:), allocatable :: source

    source = HEAD // COUNT // &
      'layout(std430, binding = 0) readonly buffer XBuffer { float x[]; };' // NL // &
      'layout(std430, binding = 1) readonly buffer YBuffer { float y[]; };' // NL // &
      'layout(std430, binding = 2) writeonly buffer ZBuffer { float z[]; };' // NL // &
      'void main() {' // NL // &
      '  uint end = count(min(min(x.length(), y.length()), z.length()));' // NL // &
      '  for (uint i = first(); i < end; i += invocations()) z[i] = sqrt(x[i] * x[i] + y[i] * y[i]);' // NL // &
      '}' // NL
  end function get_complex_shader
end module sparkle_gpu_kernels

!> The kernels by name, and further forms that `sparkle_gpu_dispatch` launches. Private to that module.
module sparkle_gpu_kernel_forms
  use sparkle_gpu_kernels
  implicit none
  private
  public :: KERNEL_NAMES, KERNEL_TYPES, source_of

  !> Programs create the first KERNEL_TYPES of these by name.
  character(len=*), parameter :: KERNEL_NAMES(8) = [character(len=16) :: 'vector_add', 'saxpy', 'gemm', 'reduction', &
    'complex', 'block_sums', 'sums', 'complex_product']
  integer, parameter :: KERNEL_TYPES = 5

  character(len=1), parameter :: NL = new_line('a')

  !> data(g) becomes the sum of the g-th 256 elements; each workgroup computes every groups()-th sum.
  character(len=*), parameter :: BLOCK_SUMS = &
    '#version 430 core' // NL // &
    'layout(local_size_x = 256) in;' // NL // &
    'layout(std430, binding = 0) readonly buffer XBuffer { float x[]; };' // NL // &
    'layout(std430, binding = 1) writeonly buffer SumsBuffer { float sums[]; };' // NL // &
    'shared float partial[256];' // NL // &
    'void main() {' // NL // &
    '  uint local = gl_LocalInvocationIndex, n = uint(x.length());' // NL // &
    '  for (uint block = gl_WorkGroupID.x; block < uint(sums.length()); block += gl_NumWorkGroups.x) {' // NL // &
    '    uint i = block * 256u + local;' // NL // &
    '    partial[local] = i < n ? x[i] : 0.0;' // NL // &
    '    barrier();' // NL // &
    '    for (uint width = 128u; width > 0u; width /= 2u) {' // NL // &
    '      if (local < width) partial[local] += partial[local + width];' // NL // &
    '      barrier();' // NL // &
    '    }' // NL // &
    '    if (local == 0u) sums[block] = partial[0];' // NL // &
    '  }' // NL // &
    '}' // NL

  !> One sum per workgroup; the remaining elements become zero.
  character(len=*), parameter :: SUMS = &
    '#version 430 core' // NL // &
    'layout(local_size_x = 256) in;' // NL // &
    'layout(std430, binding = 0) readonly buffer XBuffer { float x[]; };' // NL // &
    'layout(std430, binding = 1) writeonly buffer SumsBuffer { float sums[]; };' // NL // &
    'shared float partial[256];' // NL // &
    'void main() {' // NL // &
    '  uint local = gl_LocalInvocationIndex, step = gl_NumWorkGroups.x * 256u, start = gl_WorkGroupID.x * 256u + local;' // NL // &
    '  float sum = 0.0;' // NL // &
    '  for (uint i = start; i < uint(x.length()); i += step) sum += x[i];' // NL // &
    '  partial[local] = sum;' // NL // &
    '  barrier();' // NL // &
    '  for (uint width = 128u; width > 0u; width /= 2u) {' // NL // &
    '    if (local < width) partial[local] += partial[local + width];' // NL // &
    '    barrier();' // NL // &
    '  }' // NL // &
    '  if (local == 0u) sums[gl_WorkGroupID.x] = partial[0];' // NL // &
    '  for (uint i = gl_NumWorkGroups.x + start; i < uint(sums.length()); i += step) sums[i] = 0.0;' // NL // &
    '}' // NL

  character(len=*), parameter :: COMPLEX_PRODUCT = &
    '#version 430 core' // NL // &
    'layout(local_size_x = 256) in;' // NL // &
    'layout(location = 0) uniform uint n;' // NL // &
    'layout(std430, binding = 0) readonly buffer ABuffer { vec2 a[]; };' // NL // &
    'layout(std430, binding = 1) readonly buffer BBuffer { vec2 b[]; };' // NL // &
    'layout(std430, binding = 2) writeonly buffer CBuffer { vec2 c[]; };' // NL // &
    'void main() {' // NL // &
    '  for (uint i = gl_GlobalInvocationID.x; i < n; i += gl_NumWorkGroups.x * 256u)' // NL // &
    '    c[i] = vec2(a[i].x * b[i].x - a[i].y * b[i].y, a[i].x * b[i].y + a[i].y * b[i].x);' // NL // &
    '}' // NL

contains

  !> The source of a kernel; empty for an unknown name.
  pure function source_of(name) result(source)
    character(len=*), intent(in) :: name
    character(len=:), allocatable :: source

    select case (name)
    case ('vector_add')
      source = get_vector_add_shader()
    case ('saxpy')
      source = get_saxpy_shader()
    case ('gemm')
      source = get_gemm_shader()
    case ('reduction')
      source = get_reduction_shader()
    case ('complex')
      source = get_complex_shader()
    case ('block_sums')
      source = BLOCK_SUMS
    case ('sums')
      source = SUMS
    case ('complex_product')
      source = COMPLEX_PRODUCT
    case default
      source = ''
    end select
  end function source_of
end module sparkle_gpu_kernel_forms
