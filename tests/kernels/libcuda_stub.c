// A CUDA driver that runs nothing and writes down what it is told, as one line of JSON a call, for test_cuda_driver.py.
//
// cuda-core asks cuGetProcAddress for the driver's functions by name. The few below are recorded; all others succeed and
// do nothing. Handles are numbers: 100 + device for its primary context, 200 for the first module, 300 for its kernel.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEVICES 2

typedef struct {  // CUlaunchConfig
    unsigned grid[3], block[3], shared_bytes;
    void* stream;
    void* attributes;
    unsigned attribute_count;
} Config;

static __thread void* context;
static __thread int capture_mode;  // 0: global, 2: relaxed
static int modules, parameters, parameter_bytes[64];

static void* handle(int number) { return (void*)(intptr_t)number; }

static FILE* line(const char* call) {
    static FILE* file;
    if (!file) file = fopen(getenv("LIBCUDA_STUB_CALLS"), "w");
    fprintf(file, "{\"call\": \"%s\", \"thread\": %ld, \"context\": %d, \"mode\": %d", call, (long)syscall(SYS_gettid),
            (int)(intptr_t)context, capture_mode);
    return file;
}

static int end(FILE* file) {
    fprintf(file, "}\n");
    return fflush(file);
}

// The sizes of the next kernels' parameters, which the driver knows from the machine code.
void stub_parameters(int count, const int* bytes) {
    parameters = count;
    memcpy(parameter_bytes, bytes, count * sizeof(int));
}

// What cudaSetDevice does: the primary context of a device, current in this thread.
void stub_set_device(int device) { context = handle(100 + device); }

static int succeed(void) { return 0; }

static int driver_version(int* version) { return *version = 13000, 0; }
static int device_count(int* count) { return *count = DEVICES, 0; }
static int device_get(int* device, int ordinal) { return *device = ordinal, 0; }
static int device_attribute(int* value, int attribute, int device) {
    return *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 1, 0;  // compute capability 9.0
}
static int retain_primary(void** result, int device) { return *result = handle(100 + device), 0; }
static int context_get(void** result) { return *result = context, 0; }
static int context_device(int* device) { return *device = (int)(intptr_t)context - 100, 0; }
static int context_set(void* given) {
    context = given;
    return end(line("set context"));
}

int cuThreadExchangeStreamCaptureMode(int* mode) {
    int before = capture_mode;
    capture_mode = *mode;
    *mode = before;
    return end(line("set mode"));
}

static int library_load(void** library, const char* code) {
    *library = handle(200 + modules++);
    FILE* file = line("load");
    fprintf(file, ", \"code\": \"%s\"", code);
    return end(file);
}

static int library_kernel(void** kernel, void* library, const char* name) {
    *kernel = handle((int)(intptr_t)library + 100);
    FILE* file = line("kernel");
    fprintf(file, ", \"name\": \"%s\"", name);
    return end(file);
}

static int launch(const Config* config, void* kernel, void** values, void** extra) {
    FILE* file = line("launch");
    const unsigned *grid = config->grid, *block = config->block;
    fprintf(file, ", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u]", grid[0], grid[1], grid[2], block[0], block[1], block[2]);
    fprintf(file, ", \"stream\": %d, \"kernel\": %d, \"arguments\": [", (int)(intptr_t)config->stream, (int)(intptr_t)kernel);
    for (int i = 0; i < parameters; i++) {
        fprintf(file, i ? ", \"" : "\"");
        for (int byte = 0; byte < parameter_bytes[i]; byte++) fprintf(file, "%02x", ((unsigned char*)values[i])[byte]);
        fprintf(file, "\"");
    }
    fprintf(file, "]");
    return end(file);
}

int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags, int* status) {
    static const struct {
        const char* name;
        void* function;
    } known[] = {
        {"cuGetProcAddress", cuGetProcAddress_v2},
        {"cuDriverGetVersion", driver_version},
        {"cuDeviceGetCount", device_count},
        {"cuDeviceGet", device_get},
        {"cuDeviceGetAttribute", device_attribute},
        {"cuDevicePrimaryCtxRetain", retain_primary},
        {"cuCtxGetCurrent", context_get},
        {"cuCtxGetDevice", context_device},
        {"cuCtxSetCurrent", context_set},
        {"cuThreadExchangeStreamCaptureMode", cuThreadExchangeStreamCaptureMode},
        {"cuLibraryLoadData", library_load},
        {"cuLibraryGetKernel", library_kernel},
        {"cuLaunchKernelEx", launch},
    };
    *function = succeed;
    if (status) *status = 0;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (strcmp(name, known[i].name) == 0) *function = known[i].function;
    }
    return 0;
}
