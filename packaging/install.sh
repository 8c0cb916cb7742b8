#!/bin/sh
# Copies what `make` built to its places, or removes it: install.sh install|uninstall. The Makefile sets the variables.
# The list of installed files is kept in $DATADIR/sparkle/files, which `uninstall` reads.
set -eu

manifest=$DATADIR/sparkle/files

# put MODE SOURCE PLACE: one file.
put() {
  [ -f "$2" ] || { echo "install: $2 does not exist; run make first" >&2; exit 1; }
  install -D -m "$1" "$2" "$DESTDIR$3"
  printf '%s\n' "$3" >> "$list"
}

# link TARGET PLACE
link() {
  ln -sf "$1" "$DESTDIR$2"
  printf '%s\n' "$2" >> "$list"
}

# fill MODE TEMPLATE PLACE: a template of this folder, with its names in @ replaced.
fill() {
  awk '{
    line = $0; out = ""
    while (match(line, /@[A-Z_]+@/)) {
      out = out substr(line, 1, RSTART - 1) ENVIRON[substr(line, RSTART + 1, RLENGTH - 2)]
      line = substr(line, RSTART + RLENGTH)
    }
    print out line
  }' "packaging/$2" > "$work/filled"
  put "$1" "$work/filled" "$3"
}

# below FOLDER: FOLDER as seen from the folder of CMake's files.
below() {
  realpath -m --relative-to="$LIBDIR/cmake/sparkle" "$1"
}

install_all() {
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  list=$work/files

  put 755 "$TARGET/sparkle" "$BINDIR/sparkle"
  put 755 "$TARGET/libsparkle.so" "$LIBDIR/libsparkle.so.$VERSION"
  link "libsparkle.so.$VERSION" "$LIBDIR/libsparkle.so.$SOVERSION"
  link "libsparkle.so.$SOVERSION" "$LIBDIR/libsparkle.so"
  put 644 "$TARGET/libsparkle.a" "$LIBDIR/libsparkle.a"
  put 644 include/sparkle.h "$INCLUDEDIR/sparkle.h"
  put 644 include/sparkle_reference.h "$INCLUDEDIR/sparkle_reference.h"

  # The folders in terms of the prefix where they are below it, so that pkg-config can move the tree.
  absolute_libdir=$LIBDIR absolute_includedir=$INCLUDEDIR
  case $LIBDIR in "$PREFIX"/*) LIBDIR='${prefix}'${LIBDIR#"$PREFIX"} ;; esac
  case $INCLUDEDIR in "$PREFIX"/*) INCLUDEDIR='${prefix}'${INCLUDEDIR#"$PREFIX"} ;; esac
  fill 644 sparkle.pc.in "$absolute_libdir/pkgconfig/sparkle.pc"
  first=
  for folder in "$FORTRAN"/*/; do
    [ -f "$folder/libsparkle_fortran.a" ] || continue
    name=$(basename "$folder")
    # The compiler of `make` comes first.
    if [ -z "$first" ] || [ "$name" = "${COMPILER:-}" ]; then first=$name; fi
    for file in "$folder"/*.mod "$folder"/*.a; do
      put 644 "$file" "$absolute_libdir/sparkle/$name/$(basename "$file")"
    done
  done
  if [ -n "$first" ]; then
    COMPILER=$first
    fill 644 sparkle-fortran.pc.in "$absolute_libdir/pkgconfig/sparkle-fortran.pc"
    fill 644 sparkle-fortran-reference.pc.in "$absolute_libdir/pkgconfig/sparkle-fortran-reference.pc"
  fi
  LIBDIR=$absolute_libdir INCLUDEDIR=$absolute_includedir
  TO_INCLUDEDIR=$(below "$INCLUDEDIR") TO_DATADIR=$(below "$DATADIR")
  export TO_INCLUDEDIR TO_DATADIR
  NATIVE_LIBS=$(echo "$NATIVE_LIBS" | sed 's/^-l//; s/ -l/;/g')
  fill 644 sparkle-config.cmake.in "$LIBDIR/cmake/sparkle/sparkle-config.cmake"
  fill 644 sparkle-config-version.cmake.in "$LIBDIR/cmake/sparkle/sparkle-config-version.cmake"

  put 644 fpm.toml "$DATADIR/sparkle/fpm.toml"
  for file in fortran/Makefile fortran/compiler.sh fortran/*/*.f90 fortran/examples/kernels/*.f90; do
    put 644 "$file" "$DATADIR/sparkle/$file"
  done
  for file in mpi/*.c mpi/*.h mpi/*.f90 mpi/examples/*.f90; do
    put 644 "$file" "$DATADIR/sparkle/$file"
  done
  for file in LICENSE README.md CHANGELOG.md docs/*.md docs/*.svg docs/images/*; do
    put 644 "$file" "$DOCDIR/$file"
  done
  for page in "$TARGET"/pages/man/*.1; do
    put 644 "$page" "$MANDIR/man1/$(basename "$page")"
  done
  put 644 "$TARGET/pages/sparkle.bash" "$DATADIR/bash-completion/completions/sparkle"
  put 644 "$TARGET/pages/sparkle.zsh" "$DATADIR/zsh/site-functions/_sparkle"
  put 644 "$TARGET/pages/sparkle.fish" "$DATADIR/fish/vendor_completions.d/sparkle.fish"

  # Files of an earlier installation that this one no longer has.
  if [ -f "$DESTDIR$manifest" ]; then
    grep -vxF -f "$list" "$DESTDIR$manifest" | remove || true
  fi
  printf '%s\n' "$manifest" >> "$list"
  install -D -m 644 "$list" "$DESTDIR$manifest"
  if [ -z "$DESTDIR" ] && [ "$(id -u)" = 0 ] && command -v ldconfig >/dev/null; then ldconfig || true; fi
}

# Removes the files of a list, and the folders of their own that become empty.
remove() {
  while IFS= read -r file; do
    rm -f "$DESTDIR$file"
    folder=$(dirname "$file")
    case $folder in
      */sparkle | */sparkle/*)
        while [ "${folder%/sparkle*}" != "$folder" ] && rmdir "$DESTDIR$folder" 2>/dev/null; do
          folder=$(dirname "$folder")
        done ;;
    esac
  done
}

uninstall_all() {
  [ -f "$DESTDIR$manifest" ] || { echo "uninstall: $DESTDIR$manifest does not exist: nothing is installed there" >&2; exit 1; }
  files=$(mktemp)
  cp "$DESTDIR$manifest" "$files"
  remove < "$files"
  rm -f "$files"
}

export LIBDIR INCLUDEDIR NATIVE_LIBS COMPILER
case $1 in
  install) install_all ;;
  uninstall) uninstall_all ;;
esac
