// Runs functions of the CPU kernels' library, built for another architecture, for tests/csrc/aarch64.py.
//
// The program of an emulator: server library.so. A request on standard input is a function's name, its argument
// (a struct, or an integer where the struct is empty) and the tensors that the struct points to. The reply on standard
// output is what the function returned, and the tensors again. All numbers are int64.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static void read_exactly(void* data, size_t size) {
    if (std::fread(data, 1, size, stdin) != size) std::exit(0);  // the other side has closed the pipe
}
static int64_t read_number() {
    int64_t number;
    read_exactly(&number, sizeof number);
    return number;
}
static std::string read_text() {
    std::string text(size_t(read_number()), '\0');
    read_exactly(text.data(), text.size());
    return text;
}

// A tensor's memory, at the same place in a cache line as on the other side: kernels align their loops to it.
struct Buffer {
    std::vector<char> memory;
    size_t start, size;

    Buffer(uintptr_t address, size_t size) : memory(size + 64), size(size) {
        start = (address - reinterpret_cast<uintptr_t>(memory.data())) % 64;
    }
    char* data() { return memory.data() + start; }
};

int main(int count, char** arguments) {
    void* const library = count == 2 ? dlopen(arguments[1], RTLD_NOW) : nullptr;
    if (library == nullptr) return std::fprintf(stderr, "%s\n", count == 2 ? dlerror() : "which library?"), 1;
    while (true) {
        const std::string name = read_text();
        const int64_t number = read_number();
        std::string fields = read_text();
        std::vector<Buffer> buffers;
        for (int64_t left = read_number(); left > 0; left--) {
            const int64_t place = read_number(), size = read_number();
            uintptr_t address;
            std::memcpy(&address, fields.data() + place, sizeof address);
            buffers.emplace_back(address, size_t(size));
            read_exactly(buffers.back().data(), size_t(size));
            address = reinterpret_cast<uintptr_t>(buffers.back().data());
            std::memcpy(fields.data() + place, &address, sizeof address);
        }
        using Function = int (*)(const void*);
        const auto function = reinterpret_cast<Function>(dlsym(library, name.c_str()));
        if (function == nullptr) return std::fprintf(stderr, "%s\n", dlerror()), 1;
        const int64_t returned = function(fields.empty() ? reinterpret_cast<const void*>(number) : fields.data());
        std::fwrite(&returned, sizeof returned, 1, stdout);
        for (Buffer& buffer : buffers) std::fwrite(buffer.data(), 1, buffer.size, stdout);
        std::fflush(stdout);
    }
}
