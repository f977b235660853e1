// The CPU kernels of the torch engine, a Python module of plain functions; native.py builds and describes them.
//
// Tensors come and go by DLPack's exchange API, so that no header of torch but one is needed: this builds in
// seconds. Every row of a result is computed in an order of its own, whatever stands beside it and however many
// threads there are: results are equal to the bit for any batch.
//
// Vectors are GCC's: sixteen lanes are one register with AVX-512 and two with AVX2.

#include <Python.h>

#include <ATen/Parallel.h>
#include <ATen/dlpack.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace {

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint16_t;
using std::uint32_t;

// ---- Vectors of sixteen

constexpr int64_t LANES = 16;
typedef float F __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t Shorts __attribute__((vector_size(32)));

template <class V>
inline V load(const void* from, int64_t count = LANES) {
  V v{};
  if (count >= LANES)
    std::memcpy(&v, from, sizeof v);
  else
    std::memcpy(&v, from, count * sizeof v / LANES);
  return v;
}

template <class V>
inline void store(void* to, V v, int64_t count = LANES) {
  if (count >= LANES)
    std::memcpy(to, &v, sizeof v);
  else
    std::memcpy(to, &v, count * sizeof v / LANES);
}

#ifdef __clang__
#define SHUFFLE(Places, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(Places, a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})
#endif

inline F floats(I v) { return __builtin_convertvector(v, F); }

#ifdef __AVX512F__
inline I widened(Bytes v) { return (I)_mm512_cvtepi8_epi32((__m128i)v); }
inline I widened(Shorts v) { return (I)_mm512_cvtepu16_epi32((__m256i)v); }
inline Bytes bytes(I v) { return (Bytes)_mm512_cvtepi32_epi8((__m512i)v); }
inline F from_float16(Shorts v) { return (F)_mm512_cvtph_ps((__m256i)v); }
#else
inline I widened(Bytes v) { return __builtin_convertvector(v, I); }
inline I widened(Shorts v) { return __builtin_convertvector(v, I); }
inline Bytes bytes(I v) { return __builtin_convertvector(v, Bytes); }
inline F from_float16(Shorts v) {
  __m128i eight[2];
  std::memcpy(eight, &v, sizeof v);
  const __m256 wide[2] = {_mm256_cvtph_ps(eight[0]), _mm256_cvtph_ps(eight[1])};
  return load<F>(wide);
}
#endif

inline float as_float(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline int32_t as_bits(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
inline I nearest(F v) { return (I)(v + ROUNDER) - (I)(F{} + ROUNDER); }

inline float sum(F v) {
  __m256 half[2];
  std::memcpy(half, &v, sizeof v);
  const __m256 eight = _mm256_add_ps(half[0], half[1]);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

template <class V>
inline V larger(V a, V b) {
  return a > b ? a : b;
}

template <class V>
inline auto largest(V v) {
  v = larger(v, SHUFFLE(I, v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = larger(v, SHUFFLE(I, v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = larger(v, SHUFFLE(I, v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  return std::max(v[0], v[1]);
}

inline F absolute(F v) { return (F)((I)v & 0x7fffffff); }

// One bit for each lane that is -1.
inline unsigned lanes_of(I mask) {
  __m256 half[2];
  std::memcpy(half, &mask, sizeof mask);
  return _mm256_movemask_ps(half[0]) | _mm256_movemask_ps(half[1]) << 8;
}

inline int32_t load_word(const void* from) {
  int32_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// Four vectors of bytes: then each word of them holds the same byte of all four. Bytes stay within their 128 bits.
inline void zip(I* row) {
#ifdef __AVX512BW__
#define UNPACK(name, a, b) ((I)_mm512_unpack##name((__m512i)(a), (__m512i)(b)))
#else
  const auto half = [](const I& v, int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&v) + i); };
  const auto both = [](__m256i a, __m256i b) {
    const __m256i two[2] = {a, b};
    return load<I>(two);
  };
#define UNPACK(name, a, b) \
  both(_mm256_unpack##name(half(a, 0), half(b, 0)), _mm256_unpack##name(half(a, 1), half(b, 1)))
#endif
  const I a = UNPACK(lo_epi8, row[0], row[1]), b = UNPACK(hi_epi8, row[0], row[1]);
  const I c = UNPACK(lo_epi8, row[2], row[3]), d = UNPACK(hi_epi8, row[2], row[3]);
  row[0] = UNPACK(lo_epi16, a, c), row[1] = UNPACK(hi_epi16, a, c);
  row[2] = UNPACK(lo_epi16, b, d), row[3] = UNPACK(hi_epi16, b, d);
#undef UNPACK
}

// The sum of each of sixteen vectors, as one vector: four rounds of "shuffle two into one, add".
template <class V>
inline V sums(V* v) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    v[i] = SHUFFLE(I, v[2 * i], v[2 * i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
           SHUFFLE(I, v[2 * i], v[2 * i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    v[i] = SHUFFLE(I, v[2 * i], v[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           SHUFFLE(I, v[2 * i], v[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  const auto quarters = [](V a, V b) {
    return SHUFFLE(I, a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           SHUFFLE(I, a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  };
  return quarters(quarters(v[0], v[1]), quarters(v[2], v[3]));
}

// e^x = scale * (1 + part) with a relative error under 3e-7; x is held within what float32 can show.
struct Power {
  F scale, part;
};

inline Power power(F x) {
  x = x > -87.0f ? x : F{} - 87.0f;
  x = x < 87.0f ? x : F{} + 87.0f;
  const F shifted = x * 1.44269504f + ROUNDER;
  const F whole = shifted - ROUNDER;
  const F r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
  F p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {(F)(((I)shifted - (I)(F{} + ROUNDER) + 127) << 23), p * r * r + r};
}

inline F exponential(F x) {
  const Power p = power(x);
  return (p.part + 1.0f) * p.scale;
}

inline F exponential_less_one(F x) {  // as exact where x is small
  const Power p = power(x);
  return p.part * p.scale + (p.scale - 1.0f);
}

// ---- Tensors in and out

const DLPackExchangeAPI* torch_api;

struct Raised {};  // Python has the error already

struct Tensor : DLTensor {
  bool given = false;

  template <class T>
  T* as() const {
    return given ? static_cast<T*>(data) : nullptr;
  }
  template <class T>
  T at(int64_t i) const {
    return static_cast<const T*>(data)[i * strides[0]];
  }
};

struct Type {
  uint8_t code, bits;
};
constexpr Type FLOAT{kDLFloat, 32}, BFLOAT{kDLBfloat, 16}, INT8{kDLInt, 8}, INT32{kDLInt, 32}, INT64{kDLInt, 64};

inline bool is(const DLTensor& t, Type type) { return t.dtype.code == type.code && t.dtype.bits == type.bits; }

template <class... Values>
inline void need(bool fine, const char* what, Values... values) {
  if (fine) return;
  char text[200];
  std::snprintf(text, sizeof text, what, values...);
  throw std::invalid_argument(text);
}
inline void need(bool fine, const char* what) { need(fine, "%s", what); }

// The arguments of a call, taken in order.
struct Arguments {
  PyObject* const* next;
  PyObject* const* end;

  PyObject* object() {
    need(next != end, "too few arguments");
    return *next++;
  }
  int64_t integer() {
    const int64_t value = PyLong_AsLongLong(object());
    if (value == -1 && PyErr_Occurred()) throw Raised();
    return value;
  }
  float number() {
    const double value = PyFloat_AsDouble(object());
    if (value == -1.0 && PyErr_Occurred()) throw Raised();
    return static_cast<float>(value);
  }
  Tensor any(const char* name, int dimensions, bool contiguous = true) {
    Tensor t;
    if (torch_api->dltensor_from_py_object_no_sync(object(), &t)) throw Raised();
    t.given = true;
    need(t.device.device_type == kDLCPU, "%s is not on the CPU", name);
    need(t.ndim == dimensions, "%s has %d dimensions, not %d", name, t.ndim, dimensions);
    int64_t stride = 1;
    for (int i = t.ndim - 1; i >= 0; stride *= t.shape[i--])
      need(!contiguous || t.shape[i] == 1 || t.strides[i] == stride, "%s is not contiguous", name);
    return t;
  }
  Tensor tensor(const char* name, int dimensions, Type type = FLOAT) {
    const Tensor t = any(name, dimensions);
    need(is(t, type), "%s has the wrong dtype", name);
    return t;
  }
  Tensor column(const char* name, int64_t size, Type type = FLOAT) {  // any stride
    Tensor t = any(name, 1, false);
    need(is(t, type) && t.shape[0] == size, "%s has the wrong dtype or size", name);
    return t;
  }
  Tensor optional(const char* name, int dimensions) {
    if (*next != Py_None) return tensor(name, dimensions);
    ++next;
    return Tensor{};
  }
};

// A new tensor for the result.
struct Result {
  DLManagedTensorVersioned* made = nullptr;

  Result(int64_t rows, int64_t columns, Type type = FLOAT, int dimensions = 2) {
    int64_t shape[2] = {rows, columns};
    DLTensor like{};
    like.device = {kDLCPU, 0};
    like.ndim = dimensions;
    like.shape = shape;
    like.dtype = {type.code, type.bits, 1};
    const auto raise = [](void*, const char*, const char* message) { PyErr_SetString(PyExc_MemoryError, message); };
    if (torch_api->managed_tensor_allocator(&like, &made, nullptr, raise)) throw Raised();
  }
  template <class T>
  T* as() {
    return static_cast<T*>(made->dl_tensor.data);
  }
  PyObject* object() {
    void* result;
    if (torch_api->managed_tensor_to_py_object_no_sync(made, &result)) throw Raised();
    return static_cast<PyObject*>(result);
  }
};

struct Unlocked {  // other Python threads run meanwhile
  PyThreadState* state = PyEval_SaveThread();
  ~Unlocked() { PyEval_RestoreThread(state); }
};

// Enough multiplications for a thread to be worth waking.
constexpr int64_t WORTH = 1 << 19;
inline int64_t grain(int64_t each) { return std::max<int64_t>(1, WORTH / std::max<int64_t>(1, each)); }

// ---- Linear: y = x W^T
//
// Weights are stored in tiles of 32 rows, and a tile in pairs of vectors: one 32-bit unit of each row, which is one
// float, two bfloat16 or four int8. Activations are units as well, [units][rows]. So a product is, unit for unit, two
// vectors of weights times one unit of each row of x.

constexpr int64_t TILE = 2 * LANES;
constexpr int64_t CHUNK = 128;  // rows of x packed at a time, so that they stay in the cache
#ifdef __AVX512F__
constexpr int MOST_ROWS = 8;  // whose totals take half of the registers
#else
constexpr int MOST_ROWS = 2;
#endif

// How many bytes ahead weights are fetched into the second cache: the best of several on Zen 4.
constexpr int64_t ahead(int rows) { return rows < 3 ? 4096 : 8192; }
constexpr int64_t AHEAD_INT4 = 2048;

// Sums of four products of bytes in each lane; the first factors are unsigned, the second signed.
inline I dot_bytes(I total, I a, I b) {
#ifdef __AVX512VNNI__
  return (I)_mm512_dpbusd_epi32((__m512i)total, (__m512i)a, (__m512i)b);
#else
  __m256i t[2], u[2], s[2];
  std::memcpy(t, &total, sizeof t);
  std::memcpy(u, &a, sizeof u);
  std::memcpy(s, &b, sizeof s);
  for (int i = 0; i < 2; ++i) {
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(s[i], 8), 8), odd = _mm256_srai_epi16(s[i], 8);
    t[i] = _mm256_add_epi32(t[i], _mm256_madd_epi16(_mm256_and_si256(u[i], _mm256_set1_epi16(255)), even));
    t[i] = _mm256_add_epi32(t[i], _mm256_madd_epi16(_mm256_srli_epi16(u[i], 8), odd));
  }
  return load<I>(t);
#endif
}

inline F dot_bfloats(F total, I a, int32_t b) {
#ifdef __AVX512BF16__
  return (F)_mm512_dpbf16_ps((__m512)total, (__m512bh)a, (__m512bh)_mm512_set1_epi32(b));
#else
  total += (F)(a << 16) * as_float(b << 16);
  return total + (F)(a & -65536) * as_float(b & -65536);
#endif
}

inline Shorts bfloats(F v) {  // rounded to nearest, ties to even
  const I bits = (I)v;
  return __builtin_convertvector(((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) & 0xffff, Shorts);
}

struct Weights {
  const int32_t* data;
  const float* scale;  // int8: of each row of W
  int64_t tile;        // 32-bit words in a tile
  int64_t units;
  int64_t group;       // int4: codes that share a scale
};

struct Target {
  float* y;
  const float* scale;  // of each column, or none
  int64_t m;
  bool add;

  void put(int64_t row, int64_t column, F v) const {
    const int64_t count = m - column;
    if (count <= 0) return;
    float* at = y + row * m + column;
    if (scale) v *= load<F>(scale + column, count);
    if (add) v += load<F>(at, count);
    store(at, v, count);
  }
};

// Some rows, packed: their units, and for each (group and) row the scale and the sum of its codes.
struct Rows {
  int32_t* units;
  float* scales;
  int32_t* sums;
  int64_t first;
  int width, count;  // places, and how many of them are taken

  template <class V>
  void put(int64_t unit, int n, V values) const {
    constexpr int COUNT = sizeof(V) / sizeof(int32_t);
    int32_t each[COUNT];
    std::memcpy(each, &values, sizeof values);
    for (int i = 0; i < COUNT; ++i) units[(unit + i) * width + n] = each[i];
  }
};

struct Float {
  using Total = F;
  static constexpr int MOST = MOST_ROWS;
  static void pack(const float* row, int64_t k, int64_t, const Rows& to, int n) {
    for (int64_t i = 0; i < k; i += LANES) to.put(i, n, load<I>(row + i, k - i));
  }
  static Total start(const Rows&, int) { return F{}; }
  static Total dot(Total total, I w, int32_t x) { return total + (F)w * as_float(x); }
  static F finish(Total total, const Weights&, int64_t, const Rows&, int) { return total; }
};

struct Bfloat {
  using Total = F;
  static constexpr int MOST = MOST_ROWS;
  static void pack(const float* row, int64_t k, int64_t, const Rows& to, int n) {
    for (int64_t i = 0; i < k; i += LANES) to.put(i / 2, n, bfloats(load<F>(row + i, k - i)));
  }
  static Total start(const Rows&, int) { return F{}; }
  static Total dot(Total total, I w, int32_t x) { return dot_bfloats(total, w, x); }
  static F finish(Total total, const Weights&, int64_t, const Rows&, int) { return total; }
};

// The activations' codes for `count` values from `from` on, and their scale.
inline float scale_of(const float* from, int64_t count) {
  F most{};
  for (int64_t i = 0; i < count; i += LANES) most = larger(most, absolute(load<F>(from + i, count - i)));
  return largest(most) / 127.0f;
}
inline float inverse(float scale) { return scale > 0.0f ? 1.0f / scale : 0.0f; }

struct Int8 {
  using Total = I;
  static constexpr int MOST = MOST_ROWS;
  static void pack(const float* row, int64_t k, int64_t, const Rows& to, int n) {
    to.scales[n] = scale_of(row, k);
    const float by = inverse(to.scales[n]);
    I total{};
    for (int64_t i = 0; i < k; i += LANES) {
      const I codes = nearest(load<F>(row + i, k - i) * by);
      total += codes;
      to.put(i / 4, n, bytes(codes));
    }
    to.sums[n] = 0;
    for (int i = 0; i < LANES; ++i) to.sums[n] += total[i];
  }
  // The weights are stored plus 128, unsigned as the instruction wants them.
  static Total start(const Rows& x, int n) { return I{} - 128 * x.sums[n]; }
  static Total dot(Total total, I w, int32_t x) { return dot_bytes(total, w, I{} + x); }
  static F finish(Total total, const Weights& w, int64_t column, const Rows& x, int n) {
    return floats(total) * (load<F>(w.scale + column) * x.scales[n]);
  }
};

template <class Kind, int N>
void products(const Weights& w, int64_t tile, const Rows& x, const Target& y) {
  typename Kind::Total total[2][N];
  for (int t = 0; t < 2; ++t)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) total[t][n] = Kind::start(x, n);
  const int32_t* weights = w.data + tile * w.tile;
  const int32_t* units = x.units;
  for (int64_t u = 0; u < w.units; ++u, weights += TILE, units += N)
#pragma GCC unroll 2
    for (int t = 0; t < 2; ++t) {
      const I vector = load<I>(weights + t * LANES);
      _mm_prefetch(weights + t * LANES + ahead(N) / sizeof *weights, _MM_HINT_T1);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) total[t][n] = Kind::dot(total[t][n], vector, units[n]);
    }
  for (int t = 0; t < 2; ++t)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const int64_t column = tile * TILE + t * LANES;
      if (n < x.count) y.put(x.first + n, column, Kind::finish(total[t][n], w, column, x, n));
    }
}

// Codes of four bits, a scale and a bias for each group of them: w = code * scale + bias. A tile holds, group after
// group, group / 8 pairs of vectors of codes and one pair of scales and biases, each sixteen and sixteen float16.
// Activations are quantised by the same groups.
struct Int4 {
  static constexpr int MOST = MOST_ROWS * 3 / 4;  // there is a total in integers and one in floats
  static void pack(const float* row, int64_t k, int64_t group, const Rows& to, int n) {
    for (int64_t g = 0; g < k / group; ++g) {
      const float* from = row + g * group;
      const float scale = scale_of(from, group), by = inverse(scale);
      int32_t total = 0;
      for (int64_t i = 0; i < group; i += LANES) {
        const I codes = nearest(load<F>(from + i) * by);
        for (int j = 0; j < LANES; ++j) total += codes[j];
        // The even places of each eight, then the odd ones: so the nibbles of a word come apart.
        const Bytes eights = bytes(codes);
        to.put((g * group + i) / 4, n,
               SHUFFLE(Bytes, eights, eights, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
      }
      to.scales[g * to.width + n] = scale;
      to.sums[g * to.width + n] = total;
    }
  }
};

template <int N>
void products_of_groups(const Weights& w, int64_t tile, const Rows& x, const Target& y) {
  F result[2][N] = {};
  const int32_t* weights = w.data + tile * w.tile;
  const int32_t* units = x.units;
  for (int64_t g = 0; g < w.units; ++g, weights += TILE) {
    I total[2][N] = {};
    for (int64_t v = 0; v < w.group / 8; ++v, weights += TILE, units += 2 * N)
#pragma GCC unroll 2
      for (int t = 0; t < 2; ++t) {
        const I words = load<I>(weights + t * LANES);
        _mm_prefetch(weights + t * LANES + AHEAD_INT4 / sizeof *weights, _MM_HINT_T1);
        const I even = words & 0x0f0f0f0f, odd = (words >> 4) & 0x0f0f0f0f;
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          total[t][n] = dot_bytes(total[t][n], even, I{} + units[n]);
          total[t][n] = dot_bytes(total[t][n], odd, I{} + units[N + n]);
        }
      }
    const float* by = x.scales + g * N;
    for (int t = 0; t < 2; ++t) {
      const F scale = from_float16(load<Shorts>(weights + t * LANES / 2));
      const F bias = from_float16(load<Shorts>(weights + LANES + t * LANES / 2));
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        result[t][n] += floats(total[t][n]) * (scale * by[n]);
        result[t][n] += bias * (by[n] * static_cast<float>(x.sums[g * N + n]));
      }
    }
  }
  for (int t = 0; t < 2; ++t)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
      if (n < x.count) y.put(x.first + n, tile * TILE + t * LANES, result[t][n]);
}

// How many rows are computed together; a block of rows is filled up to the next of these.
template <class Kind>
int width_for(int64_t rows) {
  for (const int width : {1, 2, 3, 4, 6})
    if (width >= rows || width >= Kind::MOST) return width;
  return 8;
}

template <class Kind, int N>
void rows_of(const Weights& w, int64_t tile, const Rows& x, const Target& y) {
  if constexpr (N > Kind::MOST)
    return;  // never asked for
  else if constexpr (std::is_same_v<Kind, Int4>)
    products_of_groups<N>(w, tile, x, y);
  else
    products<Kind, N>(w, tile, x, y);
}

template <class Kind>
void block(const Weights& w, int64_t tile, const Rows& x, const Target& y) {
  switch (x.width) {
    case 1: return rows_of<Kind, 1>(w, tile, x, y);
    case 2: return rows_of<Kind, 2>(w, tile, x, y);
    case 3: return rows_of<Kind, 3>(w, tile, x, y);
    case 4: return rows_of<Kind, 4>(w, tile, x, y);
    case 6: return rows_of<Kind, 6>(w, tile, x, y);
    default: return rows_of<Kind, 8>(w, tile, x, y);
  }
}

int32_t* scratch(int64_t words) {
  thread_local std::vector<int32_t> memory;
  if (static_cast<int64_t>(memory.size()) < words) memory.resize(words);
  return memory.data();
}

template <class Kind>
void linear(const float* x, int64_t n, int64_t k, int64_t tiles, const Weights& w, const Target& y) {
  const int64_t units = (k + LANES - 1) / LANES * LANES;  // at most: a unit holds one value or more
  const int64_t scales = w.group ? k / w.group : 1;
  Rows blocks[CHUNK];
  for (int64_t begin = 0; begin < n; begin += CHUNK) {
    const int64_t end = std::min(n, begin + CHUNK);
    int32_t* memory = scratch((end - begin + MOST_ROWS) * (units + 2 * scales));
    int64_t count = 0;
    for (int64_t first = begin; first < end; ++count) {
      const int width = width_for<Kind>(end - first), taken = std::min<int64_t>(width, end - first);
      float* by = reinterpret_cast<float*>(memory + width * units);
      const Rows& rows = blocks[count] = {memory, by, memory + width * (units + scales), first, width, taken};
      for (int i = 0; i < taken; ++i) Kind::pack(x + (first + i) * k, k, w.group, rows, i);
      memory += width * (units + 2 * scales);
      first += taken;
    }
    at::parallel_for(0, tiles, grain(TILE * k * (end - begin)), [&](int64_t from, int64_t to) {
      for (int64_t tile = from; tile < to; ++tile)
        for (int64_t i = 0; i < count; ++i) block<Kind>(w, tile, blocks[i], y);
    });
  }
}

// linear(kind, data, scale, m, x [n, k], add_to [n, m] or None, scale_out [m] or None) -> [n, m]
PyObject* py_linear(Arguments a) {
  const int64_t kind = a.integer();
  const Tensor data = a.tensor("data", kind == 3 ? 4 : 3, INT32), scale = a.optional("scale", 1);
  const int64_t m = a.integer();
  const Tensor x = a.tensor("x", 2), add_to = a.optional("add_to", 2), scale_out = a.optional("scale_out", 1);
  const int64_t n = x.shape[0], k = x.shape[1], tiles = data.shape[0], units = data.shape[1];
  const int64_t group = kind == 3 ? 8 * (data.shape[2] - 1) : 0;
  const int64_t padded = (k + LANES - 1) / LANES * LANES;
  const int64_t expected[] = {padded, padded / 2, padded / 4, group ? k / group : 0};
  need(kind >= 0 && kind <= 3 && units == expected[kind] && (!group || k % group == 0),
       "x has %ld columns, which these weights do not fit", static_cast<long>(k));
  need(m <= tiles * TILE, "m is more than the weights hold");
  need((kind == 2) == scale.given && (!scale.given || scale.shape[0] >= tiles * TILE), "scale does not fit");
  need(!add_to.given || (add_to.shape[0] == n && add_to.shape[1] == m), "add_to is not [n, m]");
  need(!scale_out.given || scale_out.shape[0] == m, "scale_out is not [m]");
  PyObject* result;
  float* y = add_to.as<float>();
  if (add_to.given) {
    result = Py_NewRef(Py_None);
  } else {
    Result made(n, m);
    y = made.as<float>();
    result = made.object();
  }
  const Weights w{data.as<int32_t>(), scale.as<float>(), units * (group ? data.shape[2] : 1) * TILE, units, group};
  const Target target{y, scale_out.as<float>(), m, add_to.given};
  const Unlocked unlocked;
  constexpr decltype(&linear<Float>) kinds[] = {linear<Float>, linear<Bfloat>, linear<Int8>, linear<Int4>};
  kinds[kind](x.as<float>(), n, k, tiles, w, target);
  return result;
}

// ---- Norms and gate

template <class Each>
void each_row(int64_t n, int64_t k, const Each& each) {
  at::parallel_for(0, n, grain(k), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) each(row);
  });
}

// rms_norm(x [n, k], alpha [k], eps) -> [n, k]
PyObject* py_rms_norm(Arguments a) {
  const Tensor x = a.tensor("x", 2), alpha = a.tensor("alpha", 1);
  const float eps = a.number();
  const int64_t n = x.shape[0], k = x.shape[1];
  need(alpha.shape[0] == k, "alpha does not fit x");
  Result y(n, k);
  each_row(n, k, [&](int64_t row) {
    const float* from = x.as<float>() + row * k;
    F squares{};
    for (int64_t i = 0; i < k; i += LANES) {
      const F v = load<F>(from + i, k - i);
      squares += v * v;
    }
    const float by = 1.0f / std::sqrt(sum(squares) / k + eps);
    for (int64_t i = 0; i < k; i += LANES)
      store(y.as<float>() + row * k + i, load<F>(from + i, k - i) * by * load<F>(alpha.as<float>() + i, k - i), k - i);
  });
  return y.object();
}

// layer_norm(x [n, k], weight [k], bias [k], eps) -> [n, k]
PyObject* py_layer_norm(Arguments a) {
  const Tensor x = a.tensor("x", 2), weight = a.tensor("weight", 1), bias = a.tensor("bias", 1);
  const float eps = a.number();
  const int64_t n = x.shape[0], k = x.shape[1];
  need(weight.shape[0] == k && bias.shape[0] == k, "weight or bias do not fit x");
  Result y(n, k);
  each_row(n, k, [&](int64_t row) {
    const float* from = x.as<float>() + row * k;
    F total{}, squares{};
    for (int64_t i = 0; i < k; i += LANES) total += load<F>(from + i, k - i);
    const float mean = sum(total) / k;
    for (int64_t i = 0; i < k; i += LANES) {
      const int64_t count = k - i;
      F off = load<F>(from + i, count) - mean;
      if (count < LANES) off = load<F>(&off, count);  // what is past the end counts nothing
      squares += off * off;
    }
    const float by = 1.0f / std::sqrt(sum(squares) / k + eps);
    for (int64_t i = 0; i < k; i += LANES) {
      const F scaled = (load<F>(from + i, k - i) - mean) * by * load<F>(weight.as<float>() + i, k - i);
      store(y.as<float>() + row * k + i, scaled + load<F>(bias.as<float>() + i, k - i), k - i);
    }
  });
  return y.object();
}

// gate(h [n, 2m]) -> silu(h[:, :m]) * h[:, m:]
PyObject* py_gate(Arguments a) {
  const Tensor h = a.tensor("h", 2);
  const int64_t n = h.shape[0], m = h.shape[1] / 2;
  need(h.shape[1] % 2 == 0, "h has an odd number of columns");
  Result y(n, m);
  each_row(n, 8 * m, [&](int64_t row) {
    const float* from = h.as<float>() + row * 2 * m;
    for (int64_t i = 0; i < m; i += LANES) {
      const F v = load<F>(from + i, m - i);
      store(y.as<float>() + row * m + i, v / (exponential(-v) + 1.0f) * load<F>(from + m + i, m - i), m - i);
    }
  });
  return y.object();
}

// elu(x [n, steps, k], to [n, more + steps, k]): x, and e^x - 1 where it is negative, into the last steps of `to`
PyObject* py_elu(Arguments a) {
  const Tensor x = a.tensor("x", 3), to = a.tensor("to", 3);
  const int64_t n = x.shape[0], steps = x.shape[1], k = x.shape[2], more = to.shape[1] - steps;
  need(to.shape[0] == n && to.shape[2] == k && more >= 0, "x does not fit into the end of `to`");
  {
    const Unlocked unlocked;
    each_row(n * steps, 16 * k, [&](int64_t row) {
      const float* from = x.as<float>() + row * k;
      float* into = to.as<float>() + (row + (row / steps + 1) * more) * k;
      for (int64_t i = 0; i < k; i += LANES) {
        const F v = load<F>(from + i, k - i);
        store(into + i, v > 0.0f ? v : exponential_less_one(v), k - i);
      }
    });
  }
  Py_RETURN_NONE;
}

// ---- Attention over a ring of keys and values

inline F lanes(const float* from, int64_t count) { return load<F>(from, count); }
inline F lanes(const uint16_t* from, int64_t count) { return (F)(widened(load<Shorts>(from, count)) << 16); }
inline F lanes(const int8_t* from, int64_t count) { return floats(widened(load<Bytes>(from, count))); }

// Puts a vector into place `entry` of a ring.
inline void keep(const float* v, int64_t size, int64_t entry, float* ring, float*) {
  std::memcpy(ring + entry * size, v, size * sizeof(float));
}
inline void keep(const float* v, int64_t size, int64_t entry, uint16_t* ring, float*) {
  uint16_t* to = ring + entry * size;
  for (int64_t i = 0; i < size; i += LANES) store(to + i, bfloats(load<F>(v + i, size - i)), size - i);
}
inline void keep(const float* v, int64_t size, int64_t entry, int8_t* ring, float* scales) {
  int8_t* to = ring + entry * size;
  scales[entry] = scale_of(v, size);
  const float by = inverse(scales[entry]);
  for (int64_t i = 0; i < size; i += LANES)
    store(to + i, bytes(nearest(load<F>(v + i, size - i) * by)), size - i);
}

constexpr int64_t WIDEST = 256;  // the largest head that the buffers below hold

struct Attention {
  const float *qkv, *rope;
  void *keys, *values;
  float* scales;
  const int64_t *rows, *positions;
  int64_t heads, kv_heads, size, capacity, caches;
  bool pairs, together;
  float* y;

  const float* input(int64_t token, int64_t head) const {
    return qkv + (token * (heads + 2 * kv_heads) + head) * size;
  }

  // The vector turned by its position, times `by`.
  void turn(int64_t token, const float* v, float by, float* to) const {
    const float* turns = rope ? rope + token * size : nullptr;
    if (!turns) {
      for (int64_t i = 0; i < size; ++i) to[i] = v[i] * by;
    } else if (pairs) {
      for (int64_t i = 0; i < size; i += LANES) {
        const F pair = load<F>(v + i, size - i) * by, angle = load<F>(turns + i, size - i);
        const F real = SHUFFLE(I, pair, pair, 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14);
        const F imaginary = SHUFFLE(I, pair, pair, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15);
        const F other = SHUFFLE(I, angle, angle, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
        constexpr F SIGNS = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
        store(to + i, real * angle + SIGNS * imaginary * other, size - i);
      }
    } else {
      const int64_t half = size / 2;
      for (int64_t i = 0; i < half; ++i) {
        const float a = v[i] * by, b = v[half + i] * by, c = turns[2 * i], s = turns[2 * i + 1];
        to[i] = a * c - b * s;
        to[half + i] = a * s + b * c;
      }
    }
  }
};

constexpr int64_t SHORT = 16384;  // bytes of keys that end before the CPU foresees what comes next

inline void prefetch(const void* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(static_cast<const char*>(from) + i, _MM_HINT_T1);
}

// The products of a query with up to sixteen keys, each made by `product` as a vector to be summed.
template <class V, class Product>
inline V sixteen(int64_t count, const Product& product) {
  V each[LANES];
  if (count >= LANES) {
#pragma GCC unroll 16
    for (int e = 0; e < LANES; ++e) each[e] = product(e);
  } else {
    for (int e = 0; e < LANES; ++e) each[e] = e < count ? product(e) : V{};
  }
  return sums(each);
}

// How a query reads keys and values of a type. SIZE 0: heads of any size.
template <class T, int SIZE>
struct Reader {
  static constexpr int64_t PARTS = (SIZE ? SIZE : WIDEST) / LANES;
  const float* q;
  const int64_t any_size;

  F scores(const T* keys, int64_t count) const {
    const int64_t size = SIZE ? SIZE : any_size;
    return sixteen<F>(count, [&](int64_t e) {
      F total{};
      for (int64_t i = 0; i < size; i += LANES) total += load<F>(q + i) * lanes(keys + e * size + i, size - i);
      return total;
    });
  }
  void mix(const T* values, const float* weights, int64_t entries, float by, float* y) const {
    const int64_t size = SIZE ? SIZE : any_size;
    F total[PARTS] = {};
    for (int64_t e = 0; e < entries; ++e) {
      for (int64_t i = 0; i < size; i += LANES)
        total[i / LANES] += lanes(values + e * size + i, size - i) * weights[e];
    }
    for (int64_t i = 0; i < size; i += LANES) store(y + i, total[i / LANES] * by, size - i);
  }
};

// Of bfloat16, 32 at a time: those at even places, then those at odd ones.
template <int SIZE>
struct Halves {
  static constexpr int PARTS = SIZE / 32;
  F even[PARTS], odd[PARTS];

  Halves(const float* q, int64_t) {
    for (int i = 0; i < PARTS; ++i) {
      const F a = load<F>(q + 32 * i), b = load<F>(q + 32 * i + LANES);
      even[i] = SHUFFLE(I, a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      odd[i] = SHUFFLE(I, a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    }
  }
  F scores(const uint16_t* keys, int64_t count) const {
    return sixteen<F>(count, [&](int64_t e) {
      F total{};
      for (int i = 0; i < PARTS; ++i) {
        const I pairs = load<I>(keys + e * SIZE + 32 * i);
        total += even[i] * (F)(pairs << 16);
        total += odd[i] * (F)(pairs & -65536);
      }
      return total;
    });
  }
  void mix(const uint16_t* values, const float* weights, int64_t entries, float by, float* y) const {
    F evens[PARTS] = {}, odds[PARTS] = {};
    for (int64_t e = 0; e < entries; ++e) {
      for (int i = 0; i < PARTS; ++i) {
        const I pairs = load<I>(values + e * SIZE + 32 * i);
        evens[i] += (F)(pairs << 16) * weights[e];
        odds[i] += (F)(pairs & -65536) * weights[e];
      }
    }
    for (int i = 0; i < PARTS; ++i) {
      const F a = evens[i] * by, b = odds[i] * by;
      store(y + 32 * i, SHUFFLE(I, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
      store(y + 32 * i + LANES,
            SHUFFLE(I, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    }
  }
};

// Of int8, by products of bytes: the query and the weights are 16-bit integers in two bytes each.
template <int SIZE>
struct Eights {
  static constexpr int PARTS = SIZE / 64;
  static constexpr int64_t BLOCK = 256;  // weights that share a scale
  I high[PARTS], low[PARTS];
  float scale;
  int32_t offset = 0;

  Eights(const float* q, int64_t) : scale(scale_of(q, SIZE) / 256.0f) {
    const float by = inverse(scale);
    int8_t highs[SIZE], lows[SIZE];
    for (int i = 0; i < SIZE; i += LANES) {
      const I whole = nearest(load<F>(q + i) * by), top = (whole + 128) >> 8;
      store(highs + i, bytes(top));
      store(lows + i, bytes(whole - (top << 8)));
      offset += 128 * static_cast<int32_t>(sum(floats(whole)));
    }
    for (int i = 0; i < PARTS; ++i) high[i] = load<I>(highs + 64 * i), low[i] = load<I>(lows + 64 * i);
  }
  F scores(const int8_t* keys, int64_t count) const {
    const I products = sixteen<I>(count, [&](int64_t e) {
      I highs{}, lows{};
      for (int i = 0; i < PARTS; ++i) {
        const I key = load<I>(keys + e * SIZE + 64 * i) ^ static_cast<int32_t>(0x80808080);  // plus 128: unsigned
        highs = dot_bytes(highs, key, high[i]);
        lows = dot_bytes(lows, key, low[i]);
      }
      return (highs << 8) + lows;
    });
    return floats(products - offset) * scale;
  }
  void mix(const int8_t* values, const float* weights, int64_t entries, float by, float* y) const {
    F total[4 * PARTS] = {};
    for (int64_t first = 0; first < entries; first += BLOCK) {
      const int64_t end = std::min(first + BLOCK, entries);
      int8_t highs[BLOCK], lows[BLOCK];
      F most{};
      for (int64_t e = first; e < end; e += LANES) most = larger(most, load<F>(weights + e));
      const float step = largest(most) / 65535.0f, to_whole = inverse(step);
      for (int64_t e = first; e < end; e += LANES) {
        const I whole = nearest(load<F>(weights + e) * to_whole);
        store(highs + e - first, bytes(whole >> 8));
        store(lows + e - first, bytes(whole));
      }
      I sum_high[4 * PARTS] = {}, sum_low[4 * PARTS] = {};
      for (int64_t e = first; e < end; e += 4) {
        const I h = I{} + load_word(highs + e - first), l = I{} + load_word(lows + e - first);
        for (int i = 0; i < PARTS; ++i) {
          I row[4];
          for (int r = 0; r < 4; ++r) row[r] = load<I>(values + std::min(e + r, entries - 1) * SIZE + 64 * i);
          zip(row);
          for (int r = 0; r < 4; ++r) {
            sum_high[4 * i + r] = dot_bytes(sum_high[4 * i + r], h, row[r]);
            sum_low[4 * i + r] = dot_bytes(sum_low[4 * i + r], l, row[r]);
          }
        }
      }
      for (int i = 0; i < 4 * PARTS; ++i) total[i] += (floats(sum_high[i]) * 256.0f + floats(sum_low[i])) * step;
    }
    for (int i = 0; i < 4 * PARTS; ++i) {
      const F done = total[i] * by;
      for (int quarter = 0; quarter < 4; ++quarter)
        std::memcpy(y + i / 4 * 64 + quarter * 16 + i % 4 * 4, reinterpret_cast<const float*>(&done) + 4 * quarter, 16);
    }
  }
};

// Entries of a ring of `capacity` that a query must not see, from `first` on.
struct Hidden {
  int64_t first, count, capacity;
};

// One query: what it finds in the first `entries` of a ring.
template <class Read, class T>
void read(const Read& reader, const T* keys, const T* values, int64_t size, const float* key_scales,
          const float* value_scales, int64_t entries, Hidden hidden, float* weights, float* y) {
  const bool is_short = entries * size * static_cast<int64_t>(sizeof(T)) <= SHORT;
  for (int64_t first = 0; first < entries; first += LANES) {
    const int64_t count = entries - first;
    if (is_short) prefetch(values + first * size, LANES * size * sizeof(T));
    F score = reader.scores(keys + first * size, count);
    if (key_scales) score *= load<F>(key_scales + first, count);
    for (int64_t e = count; e < LANES; ++e) score[e] = -INFINITY;
    store(weights + first, score);
  }
  for (int64_t i = 0; i < hidden.count; ++i) weights[(hidden.first + i) % hidden.capacity] = -INFINITY;
  F most = F{} - INFINITY;
  for (int64_t first = 0; first < entries; first += LANES) most = larger(most, load<F>(weights + first));
  const float top = largest(most);
  F total{};
  for (int64_t first = 0; first < entries; first += LANES) {
    F weight = exponential(load<F>(weights + first) - top);
    total += weight;
    if (value_scales) weight *= load<F>(value_scales + first, entries - first);
    store(weights + first, weight);
  }
  reader.mix(values, weights, entries, 1.0f / sum(total), y);
}

// All tokens of one row, in their order, for one head of keys and values.
template <class T, class Read>
void attend(const Attention& a, const int64_t* tokens, int64_t count, int64_t head) {
  const int64_t ring = (a.rows[*tokens] * a.kv_heads + head) * a.capacity;
  T* keys = static_cast<T*>(a.keys) + ring * a.size;
  T* values = static_cast<T*>(a.values) + ring * a.size;
  float* key_scales = a.scales ? a.scales + ring : nullptr;
  float* value_scales = a.scales ? a.scales + a.caches * a.kv_heads * a.capacity + ring : nullptr;
  float* weights = reinterpret_cast<float*>(scratch(a.capacity + LANES));
  const int64_t queries = a.heads / a.kv_heads;
  float turned[WIDEST + LANES] = {};
  for (const int64_t* t = tokens; t < tokens + count; ++t) {
    const int64_t position = a.positions[*t], entry = position % a.capacity;
    a.turn(*t, a.input(*t, a.heads + head), 1.0f, turned);
    keep(turned, a.size, entry, keys, key_scales);
    keep(a.input(*t, a.heads + a.kv_heads + head), a.size, entry, values, value_scales);
    for (int64_t h = head * queries; h < (head + 1) * queries; ++h) {
      a.turn(*t, a.input(*t, h), 1.0f / std::sqrt(static_cast<float>(a.size)), turned);
      // Tokens that enter together have pushed out the oldest entries before any of them looks back.
      const Hidden hidden{entry + 1, a.together ? tokens + count - 1 - t : 0, a.capacity};
      read(Read{turned, a.size}, keys, values, a.size, key_scales, value_scales, std::min(position + 1, a.capacity),
           hidden, weights, a.y + (*t * a.heads + h) * a.size);
    }
  }
}

template <int SIZE, class T>
auto attend_of_size(const T*) { return attend<T, Reader<T, SIZE>>; }
template <int SIZE>
auto attend_of_size(const uint16_t*) { return attend<uint16_t, Halves<SIZE>>; }
template <int SIZE>
auto attend_of_size(const int8_t*) { return attend<int8_t, Eights<SIZE>>; }

template <class T>
void attend_all(const Attention& a, int64_t n) {
  std::vector<int64_t> tokens(n), starts;
  std::iota(tokens.begin(), tokens.end(), 0);
  std::stable_sort(tokens.begin(), tokens.end(), [&](int64_t i, int64_t j) { return a.rows[i] < a.rows[j]; });
  int64_t work = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (i == 0 || a.rows[tokens[i]] != a.rows[tokens[i - 1]]) starts.push_back(i);
    work += std::min(a.positions[i] + 1, a.capacity) * a.size * a.heads / a.kv_heads;
  }
  const int64_t found = starts.size();
  starts.push_back(n);
  constexpr const T* type = nullptr;
  const auto one = a.size == 64    ? attend_of_size<64>(type)
                   : a.size == 128 ? attend_of_size<128>(type)
                                   : attend<T, Reader<T, 0>>;
  at::parallel_for(0, found * a.kv_heads, grain(work / std::max<int64_t>(found, 1)), [&](int64_t from, int64_t to) {
    for (int64_t job = from; job < to; ++job) {
      const int64_t start = starts[job / a.kv_heads];
      one(a, tokens.data() + start, starts[job / a.kv_heads + 1] - start, job % a.kv_heads);
    }
  });
}

// attend(qkv [n, (H + 2 Hkv) size], keys, values [R, Hkv, C, size], scales [2, R, Hkv, C], rows [n], positions [n],
//        rope [n, size / 2, 2], pairs, together) -> [n, H size]
PyObject* py_attend(Arguments a) {
  const Tensor qkv = a.tensor("qkv", 2), keys = a.any("keys", 4), values = a.any("values", 4);
  const Tensor scales = a.optional("scales", 4), rows = a.tensor("rows", 1, INT64);
  const Tensor positions = a.tensor("positions", 1, INT64), rope = a.optional("rope", 3);
  const bool pairs = a.integer(), together = a.integer();
  const int64_t n = qkv.shape[0], caches = keys.shape[0], kv_heads = keys.shape[1], capacity = keys.shape[2];
  const int64_t size = keys.shape[3], heads = qkv.shape[1] / size - 2 * kv_heads;
  need(is(keys, FLOAT) || is(keys, BFLOAT) || is(keys, INT8), "keys are neither float32, bfloat16 nor int8");
  need(std::equal(keys.shape, keys.shape + 4, values.shape) && is(values, {keys.dtype.code, keys.dtype.bits}),
       "keys and values differ");
  need(size <= WIDEST && size % 2 == 0, "a head of %ld values: an even number up to 256 fits", static_cast<long>(size));
  need(heads > 0 && heads % kv_heads == 0 && qkv.shape[1] % size == 0, "qkv does not fit the keys");
  need(rows.shape[0] == n && positions.shape[0] == n, "rows or positions are not [n]");
  need(!rope.given || (rope.shape[0] == n && rope.shape[1] * 2 == size && rope.shape[2] == 2),
       "rope is not [n, size / 2, 2]");
  need(is(keys, INT8) == scales.given, "scales go with int8 keys and values, and only with them");
  need(!scales.given || (scales.shape[0] == 2 && std::equal(keys.shape, keys.shape + 3, scales.shape + 1)),
       "scales are not [2, R, Hkv, C]");
  for (int64_t i = 0; i < n; ++i)
    need(rows.as<int64_t>()[i] >= 0 && rows.as<int64_t>()[i] < caches && positions.as<int64_t>()[i] >= 0,
         "no such row or position");
  Result y(n, heads * size);
  const Attention all{qkv.as<float>(), rope.as<float>(), keys.data, values.data, scales.as<float>(), rows.as<int64_t>(),
                      positions.as<int64_t>(), heads, kv_heads, size, capacity, caches, pairs, together,
                      y.as<float>()};
  {
    const Unlocked unlocked;
    (is(keys, FLOAT) ? attend_all<float> : is(keys, BFLOAT) ? attend_all<uint16_t> : attend_all<int8_t>)(all, n);
  }
  return y.object();
}

// ---- Sampling

// Integers in the order of the floats.
inline I order(F v) {
  const I bits = (I)(v + 0.0f);  // minus zero is zero
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

inline F unordered(I key) { return (F)(key ^ ((key >> 31) & 0x7fffffff)); }

// A threshold between `low` and `high` that just `k` keys reach, or the k-th largest key where some are equal.
int32_t threshold(const int32_t* keys, int64_t vectors, int64_t k, int32_t low, int32_t high) {
  while (low < high) {
    const uint32_t span = static_cast<uint32_t>(high) - static_cast<uint32_t>(low);
    const int32_t middle = high - static_cast<int32_t>(span / 2);
    I reached{};
    for (int64_t i = 0; i < vectors; ++i) reached -= load<I>(keys + i * LANES) >= middle;
    const auto count = static_cast<int64_t>(sum(floats(reached)));
    if (count == k) return middle;
    if (count > k)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

constexpr int64_t PARTS = 64;  // vectors of maxima: enough for any usual top_k, few enough to look at often

int64_t sample(const float* logits, int64_t size, float temperature, int64_t k, float noise) {
  const int64_t padded = (size + LANES - 1) / LANES * LANES, part = (padded / LANES + PARTS - 1) / PARTS * LANES;
  int32_t* keys = scratch(3 * padded + LANES);
  int32_t* kept = keys + padded;            // the keys that may be drawn
  int32_t* places = kept + padded + LANES;  // and their indices
  I maxima[PARTS], most = I{} + INT32_MIN;
  for (int64_t p = 0; p < PARTS; ++p) {
    maxima[p] = I{} + INT32_MIN;
    for (int64_t i = p * part; i < std::min((p + 1) * part, size); i += LANES) {
      I key = order(load<F>(logits + i, size - i));
      for (int64_t j = size - i; j < LANES; ++j) key[j] = INT32_MIN;
      store(keys + i, key);
      maxima[p] = larger(maxima[p], key);
    }
    most = larger(most, maxima[p]);
  }
  const int32_t top = largest(most);
  if (temperature <= 0.0f) return std::find(keys, keys + size, top) - keys;

  // At least k keys reach what k of the maxima reach: few others need a look.
  const bool all = k <= 0 || k >= size;
  const auto* candidates = reinterpret_cast<const int32_t*>(maxima);
  int32_t least = INT32_MIN + 1;
  if (!all && k <= PARTS * LANES / 2) least = threshold(candidates, PARTS, k, least, top);
  int64_t count = 0;
  for (int64_t i = 0; i < size; i += LANES)
    for (unsigned found = lanes_of(load<I>(keys + i) >= least); found; found &= found - 1) {
      places[count] = i + __builtin_ctz(found);
      kept[count] = keys[places[count]];
      ++count;
    }
  store(kept + count, I{} + INT32_MIN);
  const int32_t limit = all ? least : threshold(kept, (count + LANES - 1) / LANES, k, least, top);

  const F peak = unordered(I{} + top);
  const float by = 1.0f / temperature;
  float* weights = reinterpret_cast<float*>(keys);
  double total = 0.0;
  for (int64_t i = 0; i < count; i += LANES) {
    const I key = load<I>(kept + i), inside = key >= limit;
    store(weights + i, (F)((I)exponential((unordered(key) - peak) * by) & inside));
    for (int64_t j = i; j < std::min(i + LANES, count); ++j) total += weights[j];
  }
  const double target = noise * total;
  int64_t last = 0;
  double reached = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    if (kept[i] < limit) continue;
    last = places[i];
    reached += weights[i];
    if (reached > target) break;
  }
  return last;
}

// sample(logits [n, V], temperature [n], top_k [n], noise [n]) -> [n]
PyObject* py_sample(Arguments a) {
  const Tensor logits = a.tensor("logits", 2);
  const int64_t n = logits.shape[0], size = logits.shape[1];
  const Tensor temperature = a.column("temperature", n), top_k = a.column("top_k", n, INT64);
  const Tensor noise = a.column("noise", n);
  Result y(n, 0, INT64, 1);
  {
    const Unlocked unlocked;
    each_row(n, 64 * size, [&](int64_t row) {
      y.as<int64_t>()[row] = sample(logits.as<float>() + row * size, size, temperature.at<float>(row),
                                    top_k.at<int64_t>(row), noise.at<float>(row));
    });
  }
  return y.object();
}

// ---- The module

template <PyObject* (*function)(Arguments)>
PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  try {
    return function({arguments, arguments + count});
  } catch (const Raised&) {
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <PyObject* (*function)(Arguments)>
constexpr PyMethodDef method(const char* name) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call<function>)), METH_FASTCALL, nullptr};
}

PyMethodDef methods[] = {method<py_linear>("linear"), method<py_rms_norm>("rms_norm"),
                         method<py_layer_norm>("layer_norm"), method<py_gate>("gate"), method<py_elu>("elu"),
                         method<py_attend>("attend"), method<py_sample>("sample"), {}};
PyModuleDef module{PyModuleDef_HEAD_INIT, "kernels", nullptr, -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit_kernels() {
  PyObject* torch = PyImport_ImportModule("torch");
  PyObject* tensor = torch ? PyObject_GetAttrString(torch, "Tensor") : nullptr;
  PyObject* capsule = tensor ? PyObject_GetAttrString(tensor, "__dlpack_c_exchange_api__") : nullptr;
  if (!capsule) return nullptr;
  torch_api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  return torch_api ? PyModule_Create(&module) : nullptr;
}
