# A program of the Fortran package manager. It depends on the installed sources as it would on a git repository.
cp -r fpm.toml app "$OUT"
ln -s "$PREFIX/share/sparkle" "$OUT/sparkle"
cd "$OUT"
fpm install --prefix "$OUT/installed" --link-flag "-L$LIBRARIES -Wl,-rpath,$LIBRARIES" >"$OUT/log" 2>&1
"$OUT/installed/bin/consumer"
