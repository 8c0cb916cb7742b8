// oneDNN's side of `make bench-peers`: fp32 convolution with NCHW user tensors, and batches of products. Requests and answers
// are those of sparkle/main.rs, `conv` and `products` only. `call` includes all reorders; for `prepacked` the weights are
// reordered before. A batch of products is the better of one primitive for all and one execution for each.
//
// Each figure is the better of two ways: oneDNN's own blocked layouts with reorders from and to NCHW, and NCHW
// passed to oneDNN directly.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <oneapi/dnnl/dnnl.hpp>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

using dnnl::memory;
using tag = memory::format_tag;

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The timing rule of all drivers.
template <class Call>
static double median_seconds(double seconds, Call call) {
  call();
  call();
  std::vector<double> times;
  for (double start = now(); times.size() < 5 || now() - start < seconds;) {
    double before = now();
    call();
    times.push_back(now() - before);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

struct Shape {
  long n, c, h, w, k, r, stride, pad_h, groups, dilation, s, pad_w;
  long p() const { return (h + 2 * pad_h - dilation * (r - 1) - 1) / stride + 1; }
  long q() const { return (w + 2 * pad_w - dilation * (s - 1) - 1) / stride + 1; }
  double flop() const { return 2.0 * n * k * p() * q() * (c / groups) * r * s; }
};

static std::vector<float> reals(size_t count, unsigned seed) {
  std::vector<float> values(count);
  for (float &value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = (seed >> 8) / 8388608.0f - 1.0f;
  }
  return values;
}

// Seconds of a whole call and of one with prepacked weights.
struct Times {
  double call, prepacked;
};

static Times measure(const Shape &it, bool blocked, double seconds, dnnl::engine &engine, dnnl::stream &stream) {
  const auto f32 = memory::data_type::f32;
  std::vector<float> x = reals(it.n * it.c * it.h * it.w, 1), w = reals(it.k * (it.c / it.groups) * it.r * it.s, 2),
                     y(it.n * it.k * it.p() * it.q());
  const bool grouped = it.groups > 1;
  const memory::dims xs{it.n, it.c, it.h, it.w}, ys{it.n, it.k, it.p(), it.q()};
  const memory::dims ws = grouped ? memory::dims{it.groups, it.k / it.groups, it.c / it.groups, it.r, it.s}
                                  : memory::dims{it.k, it.c, it.r, it.s};
  memory user_x({xs, f32, tag::nchw}, engine, x.data()),
      user_w({ws, f32, grouped ? tag::goihw : tag::oihw}, engine, w.data()),
      user_y({ys, f32, tag::nchw}, engine, y.data());
  const tag data = blocked ? tag::any : tag::nchw;
  dnnl::convolution_forward::primitive_desc desc(
      engine, dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_auto, {xs, f32, data},
      {ws, f32, tag::any}, {ys, f32, data}, {it.stride, it.stride}, {it.dilation - 1, it.dilation - 1},
      {it.pad_h, it.pad_w}, {it.pad_h, it.pad_w});
  dnnl::convolution_forward conv(desc);
  const auto own = [&](const memory &user, const memory::desc &wanted) {
    return user.get_desc() == wanted ? user : memory(wanted, engine);
  };
  memory own_x = own(user_x, desc.src_desc()), own_w = own(user_w, desc.weights_desc()),
         own_y = own(user_y, desc.dst_desc());
  dnnl::reorder to_x(user_x, own_x), to_w(user_w, own_w), from_y(own_y, user_y);
  const auto call = [&](bool weights) {
    if (own_x != user_x) to_x.execute(stream, user_x, own_x);
    if (weights && own_w != user_w) to_w.execute(stream, user_w, own_w);
    conv.execute(stream, {{DNNL_ARG_SRC, own_x}, {DNNL_ARG_WEIGHTS, own_w}, {DNNL_ARG_DST, own_y}});
    if (own_y != user_y) from_y.execute(stream, own_y, user_y);
    stream.wait();
  };
  const double whole = median_seconds(seconds, [&] { call(true); });
  return {whole, median_seconds(seconds, [&] { call(false); })};
}

// Seconds of `count` row-major products of m x k and k x n matrices of their own.
static double product_seconds(long m, long n, long k, long count, double seconds, dnnl::engine &engine, dnnl::stream &stream) {
  const auto f32 = memory::data_type::f32;
  std::vector<float> a = reals(count * m * k, 1), b = reals(count * k * n, 2), c(count * m * n);
  const auto primitive = [&](long batch) {
    return dnnl::matmul({engine, {{batch, m, k}, f32, tag::abc}, {{batch, k, n}, f32, tag::abc}, {{batch, m, n}, f32, tag::abc}});
  };
  const auto arguments = [&](long batch, long first) {
    return std::unordered_map<int, memory>{{DNNL_ARG_SRC, {{{batch, m, k}, f32, tag::abc}, engine, &a[first * m * k]}},
                                           {DNNL_ARG_WEIGHTS, {{{batch, k, n}, f32, tag::abc}, engine, &b[first * k * n]}},
                                           {DNNL_ARG_DST, {{{batch, m, n}, f32, tag::abc}, engine, &c[first * m * n]}}};
  };
  const dnnl::matmul all = primitive(count), one = primitive(1);
  const auto whole = arguments(count, 0);
  std::vector<std::unordered_map<int, memory>> each;
  for (long at = 0; at < count; ++at) each.push_back(arguments(1, at));
  const double together = median_seconds(seconds / 2, [&] {
    all.execute(stream, whole);
    stream.wait();
  });
  const double apart = median_seconds(seconds / 2, [&] {
    for (const auto &it : each) one.execute(stream, it);
    stream.wait();
  });
  return std::min(together, apart);
}

int main() {
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  for (std::string request; std::getline(std::cin, request);) {
    std::istringstream words(request);
    std::string what;
    words >> what;
    std::vector<double> numbers{std::istream_iterator<double>(words), {}};
    Shape it;
    const std::vector<long *> fields{&it.n,      &it.c,     &it.h,      &it.w,        &it.k, &it.r,
                                     &it.stride, &it.pad_h, &it.groups, &it.dilation, &it.s, &it.pad_w};
    const double seconds = numbers.empty() ? 0.0 : numbers.back();
    if (!numbers.empty()) numbers.pop_back();
    if (what == "products" && numbers.size() == 4) {
      const long m = static_cast<long>(numbers[0]), n = static_cast<long>(numbers[1]), k = static_cast<long>(numbers[2]);
      const long count = static_cast<long>(numbers[3]);
      std::printf("gemm=%.3f\n", 2.0 * m * n * k * count / product_seconds(m, n, k, count, seconds, engine, stream) * 1e-9);
      std::fflush(stdout);
      continue;
    }
    // The last four are optional: one group, no dilation, a square kernel.
    if (numbers.size() == 8) numbers.insert(numbers.end(), {1.0, 1.0, numbers[5], numbers[7]});
    if (what != "conv" || numbers.size() != fields.size()) {
      std::cout << "failed=not understood: " << request << std::endl;
      continue;
    }
    for (size_t i = 0; i < fields.size(); ++i) *fields[i] = static_cast<long>(numbers[i]);
    Times best{1e30, 1e30};
    for (bool blocked : {true, false}) {
      try {
        const Times times = measure(it, blocked, seconds, engine, stream);
        best = {std::min(best.call, times.call), std::min(best.prepacked, times.prepacked)};
      } catch (const dnnl::error &) {
        // oneDNN does not implement this way for this shape, but it does the other one.
      }
    }
    char answer[96];
    std::snprintf(answer, sizeof answer, "call=%.2f prepacked=%.2f", it.flop() / best.call * 1e-9,
                  it.flop() / best.prepacked * 1e-9);
    std::cout << answer << std::endl;
  }
}
