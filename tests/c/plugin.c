/* A plugin that uses the library and calls every function when it is unloaded. */
#include "everything.h"

static const char *interface;

void plugin_begin(const char *name, int in_flight);

void plugin_begin(const char *name, int in_flight) {
  interface = name;
  begin_everything();
  if (strcmp(name, "reference") == 0) use_reference();
  else use_device(name, in_flight);
}

__attribute__((destructor)) static void unload(void) {
  if (interface == NULL) return;
  const char *selector = strcmp(interface, "reference") == 0 ? "gl:0" : interface;
  compute_everything(selector);
  compute_reference();
  close_everything();
  compute_everything(selector);
  close_everything();
  WANT(write(1, "left\n", 5) == 5, "write");
}
