# A program that contains the library, and one that contains the C library as well: that one can load no driver, so `auto`
# is the CPU.
library="$(pkg-config --variable=libdir sparkle | sed 's/\\//g')/libsparkle.a"
eval "gcc -Wall -Wextra -Werror ../gcc/main.c $(pkg-config --cflags sparkle) -o '$OUT/main' '$library' \
  $(pkg-config --variable=native_libs sparkle)"
"$OUT/main"
# The linker warns of functions that need a shared C library, such as dlopen.
eval "gcc -static ../gcc/main.c $(pkg-config --cflags sparkle) -o '$OUT/static' '$library' -lm -lpthread -ldl -lgcc_eh" \
  2>"$OUT/warnings"
"$OUT/static"
