# A Python program, with a wheel that carries the installed library, as `pip install` unpacks it.
cd "$ROOT/python"
WHEEL_LIBRARY="$PREFIX/lib/libsparkle.so" "$PYTHON" -m hatchling build -t wheel -d "$OUT/wheels" >"$OUT/log" 2>&1
"$PYTHON" -m zipfile -e "$OUT"/wheels/*.whl "$OUT/site"
cd "$OUT"
PYTHONPATH="$OUT/site" "$PYTHON" "$ROOT/tests/consumers/python/main.py"
# The package without a library of its own finds the system's.
rm "$OUT/site/sparkle/libsparkle.so"
LD_LIBRARY_PATH="$PREFIX/lib" PYTHONPATH="$OUT/site" "$PYTHON" "$ROOT/tests/consumers/python/main.py"
