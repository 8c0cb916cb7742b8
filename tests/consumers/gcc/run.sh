# A C program, by the folders of the installation alone.
gcc -Wall -Wextra -Werror main.c -I"$PREFIX/include" -L"$PREFIX/lib" -lsparkle -Wl,-rpath,"$PREFIX/lib" -o "$OUT/main"
"$OUT/main"
