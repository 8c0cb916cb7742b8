// usage: leaving INTERFACE STATE WHEN, as in leaving.c. WHEN names the C++ object whose destructor calls every function.
#include <cstring>
#include <memory>
#include <string>
#include <thread>

extern "C" {
#include "everything.h"
}

static const char *interface = "cpu";

static bool is_reference() { return std::strcmp(interface, "reference") == 0; }

static void call_everything() {
  compute_everything(is_reference() ? "gl:0" : interface);
  compute_reference();
  close_everything();
  compute_everything(is_reference() ? "gl:0" : interface);
  close_everything();
  WANT(write(1, "left\n", 5) == 5, "write");
}

// Calls everything when it is destroyed, if armed.
struct Last {
  bool armed = false;
  ~Last() {
    if (armed) call_everything();
  }
};

// Deleter for devices held in smart pointers, as in programs.
struct Close {
  void operator()(sparkle_device *device) const {
    WANT(sparkle_device_close(device) == SPARKLE_OK, "close");
    WANT(write(1, "left\n", 5) == 5, "write");
  }
};

// Computes until a call fails or `stop` is set. Its destructor joins the thread.
struct Worker {
  std::thread thread;
  volatile bool stop = false;
  void start() {
    sparkle_plan *plan = its.plan;
    thread = std::thread([this, plan] {
      std::unique_ptr<float[]> output(new float[OUTPUT]);
      sparkle_status status = SPARKLE_OK;
      while (!stop && status == SPARKLE_OK && plan != nullptr)
        status = sparkle_plan_execute(plan, its.input, INPUT, output.get(), OUTPUT);
      want_status("a thread", status);
    });
  }
  ~Worker() {
    if (!thread.joinable()) return;
    stop = true;
    thread.join();
    call_everything();
  }
};

// Constructed before main, thus before the library registers its exit handler, so they are destroyed after it runs.
static Last global;
static Worker worker;
static std::unique_ptr<sparkle_device, Close> device;
static thread_local Last thread_object;

int main(int argc, char **argv) {
  CHECK(argc == 4, "usage: leaving INTERFACE STATE WHEN");
  interface = argv[1];
  const std::string state = argv[2], when = argv[3];
  begin_everything();
  if (is_reference()) use_reference();
  else use_device(interface, state == "in_flight");
  if (when == "global") global.armed = true;
  if (when == "worker") worker.start();
  if (when == "pointer") {
    sparkle_device *opened = nullptr;
    WANT(sparkle_device_open(is_reference() ? "gl:0" : interface, &opened) == SPARKLE_OK, "open");
    device.reset(opened);
  }
  if (when == "local") {
    static Last local;
    local.armed = true;
  }
  if (when == "thread") {
    std::thread ending([] {
      thread_object.armed = true;
      if (is_reference()) use_reference();
    });
    ending.join();
  }
  if (when == "thread of main") thread_object.armed = true;
  WANT(write(1, "leaving\n", 8) == 8, "write");
}
