# C, Fortran and reference programs through pkg-config. `eval` is for a PREFIX with spaces.
eval "gcc -Wall -Wextra -Werror ../gcc/main.c $(pkg-config --cflags --libs sparkle) -o '$OUT/main'"
eval "gfortran ../gfortran/main.f90 $(pkg-config --cflags --libs sparkle-fortran) -o '$OUT/fortran'"
eval "gfortran '$PREFIX/share/sparkle/fortran/examples/reference_demo.f90' \
  $(pkg-config --cflags --libs sparkle-fortran-reference) -o '$OUT/reference'"
export LD_LIBRARY_PATH="$PREFIX/lib"
"$OUT/main"
"$OUT/fortran"
"$OUT/reference"
pkg-config --modversion sparkle sparkle-fortran sparkle-fortran-reference
