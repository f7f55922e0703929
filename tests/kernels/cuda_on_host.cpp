// How does a CUDA kernel run on the CPU, and what may it not do there? Fibers, barriers, and a look at every access.
//
// Each thread of a block is a fiber with a stack of its own. All fibers of a block run, in an order that changes from
// barrier to barrier, until each waits or ends; then the barrier opens. Blocks run one after the other. The kernel is
// compiled with -fsanitize=thread, so that each of its loads and stores calls a function of this file first. It looks
// the address up and ends the kernel with a message on:
//   - an access outside of every argument and of shared memory, or one that is not aligned to its size;
//   - shared memory read before the block has written it;
//   - a race: two accesses of one element without a barrier between them, or from two blocks, one of them a write.
#include <link.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

struct CudaIndex { unsigned x, y, z; };
__attribute__((visibility("default"))) CudaIndex threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr unsigned kMaxThreads = 1024, kWarp = 32;
constexpr size_t kStackBytes = 256 << 10;  // of address space; a page is memory once touched
constexpr size_t kMaxCells = 64 << 20;     // larger arguments are only checked for their bounds

enum class State { absent, ready, at_block_barrier, at_warp_barrier, ended };

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    char* stack = nullptr;
    State state = State::absent;
    bool started = false;
    unsigned line = 0;       // of the barrier it waits at
    unsigned exchanges = 0;  // so far: two slots take turns, so that no lane overwrites what another still reads
    alignas(16) char slots[2][16];
};

// Who touched an element last. Phases count barriers and blocks, and never go back.
struct Cell {
    uint32_t written, read;  // the phase; 0: never
    uint16_t writer, reader;
    bool read_by_several, read_by_another_block;
};

struct Region {
    uintptr_t first, last;  // last: one past the end
    size_t granule;         // bytes that one cell stands for
    int argument;           // -1: shared memory
    std::vector<Cell> cells;
};

Fiber fibers[kMaxThreads];
jmp_buf scheduler;
unsigned threads, current;
uint32_t phase, first_phase_of_block;
uint64_t random_state;
bool running = false;
void (*kernel_call)(void**);
void** kernel_arguments;
std::vector<Region> regions;
std::pair<uintptr_t, uintptr_t> image_of_kernel;
char message[512];
const void* place_of_error;

[[noreturn]] void fail(const void* place, const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    place_of_error = place;
    _longjmp(scheduler, 2);
}

#define THREAD "thread %u of block (%u, %u, %u) "
#define THREAD_VALUES current, blockIdx.x, blockIdx.y, blockIdx.z

// ------------------------------------------------------------------------------------------------ loads and stores

void look_at_read(Cell& cell, bool shared, const void* place) {
    if (shared && cell.written < first_phase_of_block) {
        fail(place, THREAD "reads shared memory that no thread of its block has written", THREAD_VALUES);
    }
    if (cell.written == phase && cell.writer != current) {
        fail(place, THREAD "reads what thread %u writes, with no barrier between", THREAD_VALUES, cell.writer);
    }
    if (cell.written != 0 && cell.written < first_phase_of_block) {
        fail(place, THREAD "reads what another block writes", THREAD_VALUES);
    }
    if (!shared && cell.read != 0 && cell.read < first_phase_of_block) cell.read_by_another_block = true;
    cell.read_by_several = cell.read == phase && (cell.read_by_several || cell.reader != current);
    cell.read = phase, cell.reader = uint16_t(current);
}

void look_at_write(Cell& cell, bool shared, const void* place) {
    if (cell.written == phase && cell.writer != current) {
        fail(place, THREAD "writes what thread %u writes too, with no barrier between", THREAD_VALUES, cell.writer);
    }
    if (cell.read == phase && (cell.read_by_several || cell.reader != current)) {
        fail(place, THREAD "writes what another thread reads, with no barrier between", THREAD_VALUES);
    }
    const bool read_by_another_block = cell.read_by_another_block || (cell.read && cell.read < first_phase_of_block);
    if (!shared && (read_by_another_block || (cell.written && cell.written < first_phase_of_block))) {
        fail(place, THREAD "writes what another block reads or writes", THREAD_VALUES);
    }
    cell.written = phase, cell.writer = uint16_t(current);
}

void look(uintptr_t address, size_t size, bool write, const void* place) {
    if (!running) return;
    for (Region& region : regions) {
        if (address < region.first || address >= region.last) continue;
        if (address + size > region.last) break;
        if (address % std::min<size_t>(size & -size, 16) != 0) {
            fail(place, THREAD "accesses %zu bytes not aligned to their size", THREAD_VALUES, size);
        }
        if (region.cells.empty()) return;
        const size_t first = (address - region.first) / region.granule;
        const size_t last = (address - region.first + size - 1) / region.granule;
        for (size_t index = first; index <= last; index++) {
            (write ? look_at_write : look_at_read)(region.cells[index], region.argument < 0, place);
        }
        return;
    }
    const uintptr_t stack = reinterpret_cast<uintptr_t>(fibers[current].stack);
    if (address >= stack && address < stack + kStackBytes) return;
    if (address >= image_of_kernel.first && address < image_of_kernel.second) return;
    for (CudaIndex* index : {&threadIdx, &blockIdx, &blockDim, &gridDim}) {
        if (address - reinterpret_cast<uintptr_t>(index) < sizeof(CudaIndex)) return;
    }
    char nearest[96] = "";
    uintptr_t distance = 1 << 20;
    for (const Region& region : regions) {
        const bool before = address < region.first;
        const uintptr_t away = before ? region.first - address : address + size - region.last;
        if (away >= distance) continue;
        distance = away;
        const char* side = before ? "before the start" : "past the end";
        if (region.argument < 0) snprintf(nearest, sizeof nearest, " (%zu bytes %s of shared memory)", away, side);
        else snprintf(nearest, sizeof nearest, " (%zu bytes %s of argument %d)", away, side, region.argument);
    }
    const char* what = write ? "writes" : "reads";
    fail(place, THREAD "%s %zu bytes outside of every argument%s", THREAD_VALUES, what, size, nearest);
}

// ---------------------------------------------------------------------------------------------------------- fibers

void enter_fiber() {
    for (;;) {  // one turn a block
        kernel_call(kernel_arguments);
        Fiber& self = fibers[current];
        self.state = State::ended;
        if (_setjmp(self.place) == 0) _longjmp(scheduler, 1);
    }
}

void prepare(Fiber& fiber) {
    fiber.state = State::ready, fiber.exchanges = 0;
    if (fiber.started) return;  // it goes on at the end of enter_fiber
    if (fiber.stack == nullptr) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        fiber.stack = static_cast<char*>(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, flags, -1, 0));
        if (fiber.stack == MAP_FAILED) abort();
    }
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter_fiber, 0);
}

// Switches by longjmp: swapcontext makes two system calls every time.
void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    if (_setjmp(scheduler) != 0) return;
    Fiber& fiber = fibers[thread];
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

void wait_in(State state, unsigned line) {
    Fiber& self = fibers[current];
    self.state = state, self.line = line;
    if (_setjmp(self.place) == 0) _longjmp(scheduler, 1);
}

unsigned random_below(unsigned count) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return unsigned((random_state >> 33) % count);
}

bool open_warp_barriers() {
    bool opened = false;
    for (unsigned first = 0; first < threads; first += kWarp) {
        unsigned waiting = 0;
        for (unsigned thread = first; thread < first + kWarp && thread < threads; thread++) {
            const Fiber& fiber = fibers[thread];
            waiting += fiber.state == State::at_warp_barrier && fiber.line == fibers[first].line;
        }
        if (waiting < kWarp) continue;
        for (unsigned thread = first; thread < first + kWarp; thread++) fibers[thread].state = State::ready;
        opened = true;
    }
    return opened;
}

void open_block_barrier() {
    for (unsigned thread = 0; thread < threads; thread++) {
        const Fiber& fiber = fibers[thread];
        const bool waits = fiber.state == State::at_block_barrier && fibers[0].state == State::at_block_barrier;
        if (waits && fiber.line == fibers[0].line) continue;
        const auto describe = [](const Fiber& one) {
            return one.state == State::ended ? "has ended" : "waits in line";
        };
        running = false;
        snprintf(message, sizeof message, "block (%u, %u, %u) diverges: thread 0 %s %u, thread %u %s %u", blockIdx.x,
                 blockIdx.y, blockIdx.z, describe(fibers[0]), fibers[0].line, thread, describe(fiber), fiber.line);
        return;
    }
    for (unsigned thread = 0; thread < threads; thread++) fibers[thread].state = State::ready;
    phase++;
}

void run_block() {
    first_phase_of_block = ++phase;
    for (const Region& region : regions) {
        if (region.argument < 0) memset(reinterpret_cast<void*>(region.first), 0xff, region.last - region.first);
    }
    static unsigned order[kMaxThreads];
    for (unsigned thread = 0; thread < threads; thread++) prepare(fibers[thread]), order[thread] = thread;
    for (;;) {
        unsigned ended = 0;
        for (unsigned k = threads; k > 1; k--) std::swap(order[k - 1], order[random_below(k)]);
        for (unsigned k = 0; k < threads; k++) {
            if (fibers[order[k]].state == State::ready) resume(order[k]);
            if (message[0] != 0) return;
            ended += fibers[order[k]].state == State::ended;
        }
        if (ended == threads) return;
        if (!open_warp_barriers()) open_block_barrier();
        if (message[0] != 0) return;
    }
}

struct ModuleSearch {
    uintptr_t shared, code;
    std::pair<uintptr_t, uintptr_t> shared_block, image;
};

int find_module(dl_phdr_info* info, size_t, void* result) {
    auto& search = *static_cast<ModuleSearch*>(result);
    std::pair<uintptr_t, uintptr_t> image{~uintptr_t(0), 0}, block{0, 0};
    for (int k = 0; k < info->dlpi_phnum; k++) {
        const auto& header = info->dlpi_phdr[k];
        const uintptr_t first = info->dlpi_addr + header.p_vaddr;
        if (header.p_type == PT_LOAD) {
            image = {first < image.first ? first : image.first, std::max(image.second, first + header.p_memsz)};
        }
        const uintptr_t data = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
        if (header.p_type == PT_TLS) block = {data, data + header.p_memsz};
    }
    if (search.code >= image.first && search.code < image.second) search.image = image, search.shared_block = block;
    return 0;
}

}  // namespace

// What a kernel calls.

namespace cuda_on_host {

__attribute__((visibility("default"))) unsigned lane() { return current % kWarp; }
__attribute__((visibility("default"))) void wait_for_block(unsigned line) { wait_in(State::at_block_barrier, line); }
__attribute__((visibility("default"))) void wait_for_warp(unsigned line) { wait_in(State::at_warp_barrier, line); }

__attribute__((visibility("default"))) void exchange(const void* value, void* result, size_t size, unsigned partner,
                                                     unsigned mask, unsigned line) {
    if (mask != ~0u) fail(__builtin_return_address(0), "a shuffle's mask must hold the whole warp, got %x", mask);
    const unsigned slot = fibers[current].exchanges++ % 2;
    memcpy(fibers[current].slots[slot], value, size);
    wait_in(State::at_warp_barrier, line);
    memcpy(result, fibers[current / kWarp * kWarp + partner].slots[slot], size);
}

}  // namespace cuda_on_host

// What -fsanitize calls.

#define LOOK(name, size, write) \
    EXPORT void __tsan_##name(void* p) { look(uintptr_t(p), size, write, __builtin_return_address(0)); }
#define LOOK_AT_BOTH(bytes)                       \
    LOOK(read##bytes, bytes, false)               \
    LOOK(write##bytes, bytes, true)               \
    LOOK(unaligned_read##bytes, bytes, false)     \
    LOOK(unaligned_write##bytes, bytes, true)
LOOK_AT_BOTH(1)
LOOK_AT_BOTH(2)
LOOK_AT_BOTH(4)
LOOK_AT_BOTH(8)
LOOK_AT_BOTH(16)
EXPORT void __tsan_read_range(void* p, size_t size) { look(uintptr_t(p), size, false, __builtin_return_address(0)); }
EXPORT void __tsan_write_range(void* p, size_t size) { look(uintptr_t(p), size, true, __builtin_return_address(0)); }
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
EXPORT void __tsan_init() {}

#define UNDEFINED(name, what) \
    EXPORT void __ubsan_handle_##name##_abort() { fail(__builtin_return_address(0), THREAD what, THREAD_VALUES); }
UNDEFINED(out_of_bounds, "indexes past the end of an array")
UNDEFINED(shift_out_of_bounds, "shifts by a negative number or too far")
UNDEFINED(add_overflow, "overflows a signed integer")
UNDEFINED(sub_overflow, "overflows a signed integer")
UNDEFINED(mul_overflow, "overflows a signed integer")
UNDEFINED(negate_overflow, "overflows a signed integer")
UNDEFINED(divrem_overflow, "divides by zero")

// What Python calls. Ranges: for each pointer among the arguments its index, first byte, bytes, bytes of an element.
// Returns the error's text, or null; `place` is then where in the kernel's library it was, or null.
EXPORT const char* cuda_on_host_run(void (*call)(void**), void* shared_anchor, void** arguments, const unsigned* grid,
                                    unsigned block, const int64_t* ranges, int range_count, const void** place) {
    kernel_call = call, kernel_arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block, 1, 1};
    threads = block, phase = 0, random_state = 1, message[0] = 0, place_of_error = nullptr;
    ModuleSearch search{uintptr_t(shared_anchor), uintptr_t(call), {}, {}};
    dl_iterate_phdr(find_module, &search);
    image_of_kernel = search.image;
    const size_t shared_bytes = search.shared_block.second - search.shared_block.first;
    regions.clear();
    regions.push_back({search.shared_block.first, search.shared_block.second, 1, -1, std::vector<Cell>(shared_bytes)});
    for (int k = 0; k < range_count; k++) {
        const int64_t* range = ranges + 4 * k;
        const uintptr_t first = uintptr_t(range[1]), last = first + uintptr_t(range[2]);
        const size_t cells = size_t(range[2] / range[3]);
        std::vector<Cell> looked_at(cells > kMaxCells ? 0 : cells);
        regions.push_back({first, last, size_t(range[3]), int(range[0]), std::move(looked_at)});
    }
    running = true;
    for (unsigned z = 0; z < grid[2] && message[0] == 0; z++) {
        for (unsigned y = 0; y < grid[1] && message[0] == 0; y++) {
            for (unsigned x = 0; x < grid[0] && message[0] == 0; x++) blockIdx = {x, y, z}, run_block();
        }
    }
    running = false;
    *place = place_of_error;
    if (message[0] == 0) return nullptr;
    for (Fiber& fiber : fibers) fiber.started = false;  // those within the kernel never come back
    return message;
}
