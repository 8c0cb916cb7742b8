#!/bin/sh
# Prints a Fortran compiler's name and the number that its module files depend on: gfortran-12, flang-22, ifx-2024.
# sh compiler.sh COMPILER
version=$("$1" --version 2>/dev/null | head -n 1)
name=$(printf '%s\n' "$version" | sed -n \
  -e 's/^GNU Fortran ([^)]*) \([0-9][0-9]*\)\..*/gfortran-\1/p' \
  -e 's/.*flang.* version \([0-9][0-9]*\)\..*/flang-\1/p' \
  -e 's/^ifx .* \([0-9][0-9]*\)\.[0-9].*/ifx-\1/p')
echo "${name:-$(basename "$1")}"
