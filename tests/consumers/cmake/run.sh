# The targets that find_package defines, with the installed modules and with modules compiled in the project.
for source in OFF ON; do
  cmake -S . -B "$OUT/$source" -DCMAKE_PREFIX_PATH="$PREFIX" -Dsparkle_FORTRAN_FROM_SOURCE=$source \
    -DREFERENCE_DEMO="$PREFIX/share/sparkle/fortran/examples/reference_demo.f90" >"$OUT/log"
  cmake --build "$OUT/$source" >>"$OUT/log"
  "$OUT/$source/shared"
  "$OUT/$source/static"
  "$OUT/$source/fortran"
  "$OUT/$source/reference"
done
