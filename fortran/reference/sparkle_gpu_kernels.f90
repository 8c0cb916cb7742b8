!> The compute kernels of `sparkle_gpu_dispatch`, as GLSL.
!>
!> Buffers are bound to the SSBO indices in the order of the argument list:
!>
!> | kernel     | 0           | 1           | 2          | 3                | result                                  |
!> | ---------- | ----------- | ----------- | ---------- | ---------------- | --------------------------------------- |
!> | vector_add | a, float    | b, float    | c, float   |                  | c = a + b                               |
!> | saxpy      | alpha, one  | x, float    | y, float   |                  | y = alpha x + y                         |
!> | gemm       | A, m x k    | B, k x n    | C, m x n   | m, n, k as int32 | C = A B, column-major, packed           |
!> | reduction  | x, float    | sums, float |            |                  | the elements of sums add up to sum(x)   |
!> | complex    | a, re and im| b           | c          |                  | c = a b, element by element             |
!>
!> Lengths are those of the shortest buffer. Every kernel strides over its work, so any grid computes all of it, and a
!> `sums` of one element holds the whole sum. 256 invocations make a workgroup.
module sparkle_gpu_kernels
  implicit none
  private
  public :: glsl_of_kernel, KERNEL_TYPES

  character(len=10), parameter :: KERNEL_TYPES(5) = &
    [character(len=10) :: 'vector_add', 'saxpy', 'gemm', 'reduction', 'complex']

  character(len=1), parameter :: NL = new_line('a')

  !> Flattens the three-dimensional grid: `first` is this invocation's number, `invocations` how many there are.
  character(len=*), parameter :: HEAD = &
    '#version 430 core' // NL // &
    'layout(local_size_x = 256) in;' // NL // &
    'uint group() {' // NL // &
    '  return (gl_WorkGroupID.z * gl_NumWorkGroups.y + gl_WorkGroupID.y) * gl_NumWorkGroups.x + gl_WorkGroupID.x;' // NL // &
    '}' // NL // &
    'uint groups() { return gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z; }' // NL // &
    'uint first() { return group() * 256u + gl_LocalInvocationIndex; }' // NL // &
    'uint invocations() { return groups() * 256u; }' // NL

  character(len=*), parameter :: VECTOR_ADD = &
    'layout(std430, binding = 0) readonly buffer BufferA { float a[]; };' // NL // &
    'layout(std430, binding = 1) readonly buffer BufferB { float b[]; };' // NL // &
    'layout(std430, binding = 2) writeonly buffer BufferC { float c[]; };' // NL // &
    'void main() {' // NL // &
    '  uint n = uint(min(min(a.length(), b.length()), c.length()));' // NL // &
    '  for (uint i = first(); i < n; i += invocations()) c[i] = a[i] + b[i];' // NL // &
    '}' // NL

  character(len=*), parameter :: SAXPY = &
    'layout(std430, binding = 0) readonly buffer BufferAlpha { float alpha; };' // NL // &
    'layout(std430, binding = 1) readonly buffer BufferX { float x[]; };' // NL // &
    'layout(std430, binding = 2) buffer BufferY { float y[]; };' // NL // &
    'void main() {' // NL // &
    '  uint n = uint(min(x.length(), y.length()));' // NL // &
    '  for (uint i = first(); i < n; i += invocations()) y[i] = alpha * x[i] + y[i];' // NL // &
    '}' // NL

  character(len=*), parameter :: GEMM = &
    'layout(std430, binding = 0) readonly buffer BufferA { float a[]; };' // NL // &
    'layout(std430, binding = 1) readonly buffer BufferB { float b[]; };' // NL // &
    'layout(std430, binding = 2) writeonly buffer BufferC { float c[]; };' // NL // &
    'layout(std430, binding = 3) readonly buffer BufferSizes { int m, n, k; };' // NL // &
    'void main() {' // NL // &
    '  uint rows = uint(m), inner = uint(k);' // NL // &
    '  for (uint i = first(); i < rows * uint(n); i += invocations()) {' // NL // &
    '    uint row = i % rows, column = i / rows;' // NL // &
    '    float sum = 0.0;' // NL // &
    '    for (uint p = 0u; p < inner; ++p) sum += a[p * rows + row] * b[column * inner + p];' // NL // &
    '    c[i] = sum;' // NL // &
    '  }' // NL // &
    '}' // NL

  !> One sum a workgroup; groups beyond the length of `sums` stay idle, elements beyond the groups become zero.
  character(len=*), parameter :: REDUCTION = &
    'layout(std430, binding = 0) readonly buffer BufferX { float x[]; };' // NL // &
    'layout(std430, binding = 1) writeonly buffer BufferSums { float sums[]; };' // NL // &
    'shared float partial[256];' // NL // &
    'void main() {' // NL // &
    '  uint n = uint(x.length()), working = min(groups(), uint(sums.length()));' // NL // &
    '  float sum = 0.0;' // NL // &
    '  if (group() < working) for (uint i = first(); i < n; i += working * 256u) sum += x[i];' // NL // &
    '  partial[gl_LocalInvocationIndex] = sum;' // NL // &
    '  barrier();' // NL // &
    '  for (uint width = 128u; width > 0u; width /= 2u) {' // NL // &
    '    if (gl_LocalInvocationIndex < width)' // NL // &
    '      partial[gl_LocalInvocationIndex] += partial[gl_LocalInvocationIndex + width];' // NL // &
    '    barrier();' // NL // &
    '  }' // NL // &
    '  if (group() < working && gl_LocalInvocationIndex == 0u) sums[group()] = partial[0];' // NL // &
    '  for (uint i = working + first(); i < uint(sums.length()); i += invocations()) sums[i] = 0.0;' // NL // &
    '}' // NL

  character(len=*), parameter :: COMPLEX_PRODUCT = &
    'layout(std430, binding = 0) readonly buffer BufferA { vec2 a[]; };' // NL // &
    'layout(std430, binding = 1) readonly buffer BufferB { vec2 b[]; };' // NL // &
    'layout(std430, binding = 2) writeonly buffer BufferC { vec2 c[]; };' // NL // &
    'void main() {' // NL // &
    '  uint n = uint(min(min(a.length(), b.length()), c.length()));' // NL // &
    '  for (uint i = first(); i < n; i += invocations())' // NL // &
    '    c[i] = vec2(a[i].x * b[i].x - a[i].y * b[i].y, a[i].x * b[i].y + a[i].y * b[i].x);' // NL // &
    '}' // NL

contains

  !> The source of a kernel; empty if there is none of that name.
  pure function glsl_of_kernel(kernel_type) result(source)
    character(len=*), intent(in) :: kernel_type
    character(len=:), allocatable :: source

    select case (kernel_type)
    case ('vector_add')
      source = HEAD // VECTOR_ADD
    case ('saxpy')
      source = HEAD // SAXPY
    case ('gemm')
      source = HEAD // GEMM
    case ('reduction')
      source = HEAD // REDUCTION
    case ('complex')
      source = HEAD // COMPLEX_PRODUCT
    case default
      source = ''
    end select
  end function glsl_of_kernel
end module sparkle_gpu_kernels
