#!/bin/sh
# Builds and runs the programs of tests/mpi and mpi/examples with each named implementation of MPI: run.sh openmpi mpich.
# TARGET is the folder of libsparkle.so.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 SPARKLE_CACHE_DIR="$work/cache" SPARKLE_NUM_THREADS=1
warnings="-Wall -Wextra -Werror"

# run MPI RANKS PROGRAM EXPECTED: one program; its output is the last line.
run() {
  case $1 in openmpi) more=--oversubscribe ;; *) more= ;; esac
  printed=$(timeout 300 "mpirun.$1" $more -n "$2" "$3" | tail -n 1)
  [ "$printed" = "$4" ] || { echo "$1, $2 ranks, $3: \"$printed\"; expected \"$4\"" >&2; exit 1; }
  echo "$1, $2 ranks, $(basename "$3"): ok"
}

for mpi in "$@"; do
  out=$work/$mpi
  mkdir -p "$out"
  cd "$out"
  link="-L$TARGET -lsparkle -Wl,-rpath,$TARGET"
  "mpicc.$mpi" -std=c99 -O1 -Wall -Wextra -Werror -I"$root/include" -I"$root/mpi" "$root/tests/mpi/groups.c" \
    "$root/mpi/sparkle_mpi.c" $link -o groups
  for ranks in 1 2 4 6; do run "$mpi" "$ranks" ./groups "$ranks ranks: every output is exact"; done
  # One rank, without a launcher.
  [ "$(./groups)" = "1 ranks: every output is exact" ]

  make -s -C "$root/fortran" modern FC="mpifort.$mpi" BUILD="$out/modules"
  "mpicc.$mpi" -std=c99 -O1 $warnings -I"$root/include" -I"$root/mpi" -c "$root/mpi/sparkle_mpi.c" -o transport.o
  "mpifort.$mpi" -O1 $warnings -Imodules -c "$root/mpi/sparkle_mpi.f90" "$root/mpi/sparkle_mpi_f08.f90"
  for source in "$root/mpi/examples/smooth_field.f90" "$root/tests/mpi/integer_communicators.f90"; do
    "mpifort.$mpi" -O1 $warnings -Imodules "$source" transport.o sparkle_mpi.o sparkle_mpi_f08.o -Lmodules \
      -lsparkle_fortran $link -o "$(basename "$source" .f90)"
  done
  for ranks in 1 3 4; do
    run "$mpi" "$ranks" ./smooth_field "the sum of the field is the same"
    run "$mpi" "$ranks" ./integer_communicators "every element is right"
  done
done
