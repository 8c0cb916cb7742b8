/* usage: unloading PLUGIN INTERFACE STATE WHEN
 * Loads a plugin that uses the library. This program is not linked with it. WHEN is "dlclose" or "exit". */
#include <dlfcn.h>
#include <unistd.h>

#include "check.h"

int main(int argc, char **argv) {
  CHECK(argc == 5, "usage: unloading PLUGIN INTERFACE STATE WHEN");
  void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  CHECK(plugin != NULL, "%s", dlerror());
  void (*begin)(const char *, int);
  *(void **)&begin = dlsym(plugin, "plugin_begin");
  CHECK(begin != NULL, "%s", dlerror());
  begin(argv[2], strcmp(argv[3], "in_flight") == 0);
  CHECK(write(1, "leaving\n", 8) == 8, "write");
  if (strcmp(argv[4], "dlclose") == 0) CHECK(dlclose(plugin) == 0, "%s", dlerror());
  return 0;
}
