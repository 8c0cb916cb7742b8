#include "layout.c" // The same checks, as C++.
