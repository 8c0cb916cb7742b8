# A Fortran program, by the folders of the installation alone, and one for the reference framework's modules.
modules="$PREFIX/lib/sparkle/$COMPILER"
gfortran -Wall -Werror main.f90 -I"$modules" -L"$modules" -lsparkle_fortran \
  -L"$PREFIX/lib" -lsparkle -Wl,-rpath,"$PREFIX/lib" -o "$OUT/main"
gfortran "$PREFIX/share/sparkle/fortran/examples/reference_demo.f90" -I"$modules" -L"$modules" \
  -lsparkle_fortran_reference -lsparkle_fortran -L"$PREFIX/lib" -lsparkle -Wl,-rpath,"$PREFIX/lib" -o "$OUT/reference"
"$OUT/main"
"$OUT/reference"
