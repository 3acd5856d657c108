// What the jobs of scripts/gpu-check run. Exit 0 only where the card's results equal the CPU's.
//   gpujob compute            SAXPY over 16 Mi floats and a 512x512 matrix product, checked on the CPU
//   gpujob spin SECONDS       the same product again and again for so long, each checked
//   gpujob load SECONDS MIB   keeps the card busy with a large product, holding so much of its memory
//   gpujob hold SECONDS       makes a context and keeps it, without computing
//   gpujob hog MIB SECONDS    takes so much of the card's memory, writes it, and holds it
//   gpujob ctx                makes a context and ends
//   gpujob fault              writes to a null pointer on the card (the driver notes an Xid), exit 10
// It writes what it found to $OUTPUT_PATH (or to stdout where that is not set), as JSON.
#include <cuda_runtime.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>
#include <time.h>

static double now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

#define CHECK(call)                                                                      \
  do {                                                                                   \
    cudaError_t err_ = (call);                                                           \
    if (err_ != cudaSuccess) {                                                           \
      printf("CUDA error at line %d: %s: %s\n", __LINE__, cudaGetErrorName(err_),        \
             cudaGetErrorString(err_));                                                  \
      fflush(stdout);                                                                    \
      exit(10);                                                                          \
    }                                                                                    \
  } while (0)

__global__ void saxpy(int n, float a, const float *x, float *y) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i] + y[i];
}

__global__ void matmul(int n, const float *a, const float *b, float *c) {
  __shared__ float s[16][16], t[16][16];
  int row = blockIdx.y * 16 + threadIdx.y, col = blockIdx.x * 16 + threadIdx.x;
  float sum = 0;
  for (int k = 0; k < n; k += 16) {
    s[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
    t[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + col];
    __syncthreads();
    for (int j = 0; j < 16; j++) sum += s[threadIdx.y][j] * t[j][threadIdx.x];
    __syncthreads();
  }
  c[row * n + col] = sum;
}

__global__ void fill(unsigned long long n, unsigned *p, unsigned v) {
  for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < n;
       i += (unsigned long long)gridDim.x * blockDim.x)
    p[i] = v;
}

__global__ void fault(int *p) { *p = 1; }

static std::string uuid_of(const cudaDeviceProp &p) {
  const unsigned char *u = reinterpret_cast<const unsigned char *>(p.uuid.bytes);
  std::string out = "GPU-";
  char hex[3];
  for (int i = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    snprintf(hex, sizeof hex, "%02x", u[i]);
    out += hex;
  }
  return out;
}

struct Product {
  int n;
  std::vector<float> a, b;
  std::vector<double> want;
  float *da, *db, *dc;
  explicit Product(int n) : n(n), a(n * n), b(n * n), want(size_t(n) * n, 0.0) {
    for (int i = 0; i < n * n; i++) {
      a[i] = float((i * 7 + 3) % 31 - 15) / 16;
      b[i] = float((i * 5 + 1) % 29 - 14) / 16;
    }
    for (int i = 0; i < n; i++)
      for (int k = 0; k < n; k++)
        for (int j = 0; j < n; j++) want[size_t(i) * n + j] += double(a[i * n + k]) * b[k * n + j];
    size_t bytes = sizeof(float) * n * n;
    CHECK(cudaMalloc(&da, bytes));
    CHECK(cudaMalloc(&db, bytes));
    CHECK(cudaMalloc(&dc, bytes));
    CHECK(cudaMemcpy(da, a.data(), bytes, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(db, b.data(), bytes, cudaMemcpyHostToDevice));
  }
  // The largest difference to the CPU's product; the checksum goes to *sum.
  double run(double *sum, double *ms) {
    std::vector<float> c(n * n);
    CHECK(cudaMemset(dc, 0, sizeof(float) * n * n));
    double start = now_ms();
    matmul<<<dim3(n / 16, n / 16), dim3(16, 16)>>>(n, da, db, dc);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    *ms = now_ms() - start;
    CHECK(cudaMemcpy(c.data(), dc, sizeof(float) * n * n, cudaMemcpyDeviceToHost));
    double worst = 0;
    *sum = 0;
    for (size_t i = 0; i < c.size(); i++) {
      worst = fmax(worst, fabs(c[i] - want[i]));
      *sum += c[i];
    }
    return worst;
  }
};

static void save(const std::string &text) {
  printf("%s\n", text.c_str());
  fflush(stdout);
  const char *path = getenv("OUTPUT_PATH");
  if (!path) return;
  FILE *file = fopen(path, "w");
  if (!file || fprintf(file, "%s\n", text.c_str()) < 0 || fclose(file)) {
    printf("can't write %s\n", path);
    exit(11);
  }
}

int main(int argc, char **argv) {
  std::string mode = argc > 1 ? argv[1] : "compute";
  double begun = now_ms();
  int count = 0;
  CHECK(cudaGetDeviceCount(&count));
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
  double context_ms = now_ms() - begun;
  cudaDeviceProp p;
  CHECK(cudaGetDeviceProperties(&p, 0));
  int driver = 0, runtime = 0;
  CHECK(cudaDriverGetVersion(&driver));
  CHECK(cudaRuntimeGetVersion(&runtime));
  size_t free_b = 0, total_b = 0;
  CHECK(cudaMemGetInfo(&free_b, &total_b));
  char head[1024];
  snprintf(head, sizeof head,
           "\"mode\":\"%s\",\"devices\":%d,\"name\":\"%s\",\"uuid\":\"%s\",\"cc\":\"%d.%d\","
           "\"cuda_driver\":%d,\"cuda_runtime\":%d,\"mem_total_mib\":%zu,\"mem_free_mib\":%zu,"
           "\"context_ms\":%.1f",
           mode.c_str(), count, p.name, uuid_of(p).c_str(), p.major, p.minor, driver, runtime,
           total_b >> 20, free_b >> 20, context_ms);
  printf("device 0 of %d: %s %s, context after %.1f ms\n", count, p.name, uuid_of(p).c_str(), context_ms);
  fflush(stdout);
  if (mode == "ctx") {
    save(std::string("{") + head + "}");
    return 0;
  }
  if (mode == "fault") {
    fault<<<1, 1>>>(nullptr);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    return 0;
  }
  if (mode == "hold") {
    sleep(argc > 2 ? atoi(argv[2]) : 60);
    return 0;
  }
  if (mode == "load") {
    const int n = 4096;
    const size_t bytes = sizeof(float) * n * n;
    double until = now_ms() + (argc > 2 ? atof(argv[2]) : 10) * 1e3;
    size_t held = (argc > 3 ? strtoull(argv[3], nullptr, 10) : 1024) << 20;
    char *d;
    CHECK(cudaMalloc(&d, held > 3 * bytes ? held : 3 * bytes));
    CHECK(cudaMemset(d, 0, 3 * bytes));
    float *a = reinterpret_cast<float *>(d), *b = a + size_t(n) * n, *c = b + size_t(n) * n;
    for (long rounds = 0; now_ms() < until; rounds++) {
      // Several in the queue, so that the card never waits for this loop.
      for (int i = 0; i < 8; i++) matmul<<<dim3(n / 16, n / 16), dim3(16, 16)>>>(n, a, b, c);
      CHECK(cudaGetLastError());
      CHECK(cudaDeviceSynchronize());
      if (rounds == 0) {
        printf("LOADING %zu MiB\n", held >> 20);
        fflush(stdout);
      }
    }
    save(std::string("{") + head + ",\"ok\":true}");
    return 0;
  }
  if (mode == "hog") {
    size_t mib = argc > 2 ? strtoull(argv[2], nullptr, 10) : 1024;
    int seconds = argc > 3 ? atoi(argv[3]) : 60;
    unsigned *d;
    CHECK(cudaMalloc(&d, mib << 20));
    fill<<<1024, 256>>>((mib << 20) / 4, d, 0xa5a5a5a5u);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    printf("HOLDING %zu MiB\n", mib);
    fflush(stdout);
    sleep(seconds);
    save(std::string("{") + head + "}");
    return 0;
  }
  Product product(512);
  char text[2048];
  if (mode == "spin") {
    double seconds = argc > 2 ? atof(argv[2]) : 10, sum = 0, worst = 0, ms = 0, until = now_ms() + seconds * 1e3;
    long rounds = 0;
    double next = now_ms();
    while (now_ms() < until) {
      worst = fmax(worst, product.run(&sum, &ms));
      rounds++;
      if (now_ms() >= next) {
        printf("round %ld\n", rounds);
        fflush(stdout);
        next += 1000;
      }
    }
    bool ok = worst < 1e-2;
    snprintf(text, sizeof text, "{%s,\"rounds\":%ld,\"worst\":%.3g,\"sum\":%.4f,\"ok\":%s}", head, rounds,
             worst, sum, ok ? "true" : "false");
    save(text);
    return ok ? 0 : 12;
  }
  const int n = 1 << 24;
  std::vector<float> x(n), y(n), got(n);
  for (int i = 0; i < n; i++) x[i] = float(i % 1000) / 8, y[i] = float(i % 77);
  float *dx, *dy;
  CHECK(cudaMalloc(&dx, sizeof(float) * n));
  CHECK(cudaMalloc(&dy, sizeof(float) * n));
  CHECK(cudaMemcpy(dx, x.data(), sizeof(float) * n, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(dy, y.data(), sizeof(float) * n, cudaMemcpyHostToDevice));
  double start = now_ms();
  saxpy<<<(n + 255) / 256, 256>>>(n, 2.5f, dx, dy);
  CHECK(cudaGetLastError());
  CHECK(cudaDeviceSynchronize());
  double saxpy_ms = now_ms() - start;
  CHECK(cudaMemcpy(got.data(), dy, sizeof(float) * n, cudaMemcpyDeviceToHost));
  long wrong = 0;
  for (int i = 0; i < n; i++)
    if (fabsf(got[i] - (2.5f * x[i] + y[i])) > 1e-3f) wrong++;
  double sum = 0, ms = 0, worst = product.run(&sum, &ms);
  bool ok = wrong == 0 && worst < 1e-2 && count == 1;
  snprintf(text, sizeof text,
           "{%s,\"saxpy_wrong\":%ld,\"saxpy_ms\":%.3f,\"matmul_worst\":%.3g,\"matmul_sum\":%.4f,"
           "\"matmul_ms\":%.3f,\"ok\":%s}",
           head, wrong, saxpy_ms, worst, sum, ms, ok ? "true" : "false");
  save(text);
  return ok ? 0 : 12;
}
