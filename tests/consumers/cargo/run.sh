# A Rust program that depends on the package as it is published. Cargo keeps to the versions of the repository's lock file.
cp -r Cargo.toml src "$OUT"
cp "$ROOT/Cargo.lock" "$OUT"
(cd "$ROOT" && cargo package --quiet --package sparkle-compute --no-verify --allow-dirty --target-dir "$OUT/target")
tar -xzf "$OUT"/target/package/sparkle-compute-*.crate -C "$OUT"
cd "$OUT"
patch="patch.crates-io.sparkle-compute.path=\"$(echo sparkle-compute-*)\""
cargo run --quiet --config "$patch" --target-dir "$OUT/target"
# The crates of the library: none of the program's.
cargo tree --config "$patch" --package sparkle-compute --edges normal --prefix none | sed 's/ .*//' | sort -u | wc -l
# Nothing but what a dependent needs: no tests, no records of benchmarks, no shared library left behind.
ls sparkle-compute-*/
