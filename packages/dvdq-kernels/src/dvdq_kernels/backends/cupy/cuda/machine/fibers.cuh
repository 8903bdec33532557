// The threads of a block on one CPU: each is a fiber, which runs until it waits for others.
//
// What a GPU leaves open is decided by a seed: in which order threads run, and whether an asynchronous copy is done at
// once or only when its end is waited for. A kernel that forgets a barrier or a wait gives other results for some seed.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <csignal>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulation {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

// How many have come since all were last let go.
struct Gathering {
    int arrived = 0;
    unsigned generation = 0;
};

struct Warp {
    Gathering gathering;
    const char* instruction = nullptr;
    // Two sets of what lanes hand to one another: one is read while the next is written.
    alignas(16) unsigned char exchanged[2][32][64];
};

struct Block;

struct Thread {
    Index index;
    Block* of = nullptr;
    ucontext_t start;
    jmp_buf resume;
    bool started = false, finished = false;
    std::unique_ptr<char[]> stack;
    std::vector<std::function<void()>> copies;
    std::deque<std::vector<std::function<void()>>> groups;
};

struct Block {
    Index index, count, size;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::map<int, Gathering> barriers;
    char* shared = nullptr;
    std::uint32_t random = 0;
    // Set by the parts that add to this file: what a block keeps of them.
    std::map<std::string, std::shared_ptr<void>> extensions;
};

// Blocks of a cluster; each library has its own number.
static unsigned cluster = 1;

inline Block* block = nullptr;
inline Thread* self = nullptr;
inline jmp_buf scheduler;
inline bool moved = false;
inline std::string failure;
constexpr std::size_t STACK = 256 * 1024;

inline void yield() {
    if (_setjmp(self->resume) == 0) _longjmp(scheduler, 1);
}

[[noreturn]] inline void fail(const std::string& what) {
    if (failure.empty())
        failure = what + ", thread " + std::to_string(self->index.x) + " of block " + std::to_string(block->index.x);
    self->finished = true;
    _longjmp(scheduler, 1);
}

// A thread that touches a page that nobody may touch ends its kernel.
inline void touched(int, siginfo_t*, void*) { fail("touches memory that is not its own"); }

// Shared memory of a block: what was there before is left in it, and a page that nobody may touch follows it.
class Shared {
public:
    explicit Shared(std::size_t bytes) : pages_((bytes + PAGE - 1) / PAGE) {
        memory_ = static_cast<char*>(
            mmap(nullptr, (pages_ + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        std::memset(memory_, 0xA5, pages_ * PAGE);
        mprotect(memory_ + pages_ * PAGE, PAGE, PROT_NONE);
        // Kernels may rely on 1,024 bytes of alignment.
        start = memory_ + (pages_ * PAGE - bytes) / 1024 * 1024;
    }
    ~Shared() { munmap(memory_, (pages_ + 1) * PAGE); }
    char* start;

private:
    static constexpr std::size_t PAGE = 4096;
    std::size_t pages_;
    char* memory_;
};

// Lets other threads run until `ready` holds.
template <class Ready>
void wait_until(Ready ready) {
    if (ready()) return;
    do yield();
    while (!ready());
    moved = true;
}

// Returns when `expected` threads have come.
inline void gather(Gathering& gathering, int expected) {
    const unsigned generation = gathering.generation;
    if (++gathering.arrived == expected) {
        gathering.arrived = 0;
        ++gathering.generation;
        moved = true;
        return;
    }
    wait_until([&] { return gathering.generation != generation; });
}

// A number below `count` (xorshift of 32 bits).
inline unsigned drawn(unsigned count) {
    std::uint32_t& x = block->random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return static_cast<unsigned>(static_cast<std::uint64_t>(x) * count >> 32);
}

// Whether something asynchronous happens at once rather than as late as it may.
inline bool happens_early() { return drawn(2) == 0; }

inline Warp& warp() { return block->warps[self->index.x / 32]; }
inline int lane() { return static_cast<int>(self->index.x % 32); }

// What each lane of the warp holds, once all of them have come to the same instruction.
template <typename T>
class Exchanged {
public:
    Exchanged(const char* instruction, const T& mine) : warp_(warp()), set_(warp_.gathering.generation & 1) {
        static_assert(sizeof(T) <= 64);
        if (warp_.gathering.arrived == 0) warp_.instruction = instruction;
        if (std::strcmp(warp_.instruction, instruction) != 0)
            fail(std::string("a warp is at ") + instruction + " and at " + warp_.instruction);
        std::memcpy(warp_.exchanged[set_][lane()], &mine, sizeof(T));
        gather(warp_.gathering, 32);
    }
    T operator[](int lane) const {
        T value;
        std::memcpy(&value, warp_.exchanged[set_][lane & 31], sizeof(T));
        return value;
    }

private:
    Warp& warp_;
    unsigned set_;
};

inline std::function<void()> body;

inline void enter() {
    body();
    self->finished = true;
    moved = true;
    _longjmp(scheduler, 1);
}

inline void resume(Thread& thread) {
    self = &thread;
    block = thread.of;
    if (_setjmp(scheduler) != 0) return;
    if (thread.started) _longjmp(thread.resume, 1);
    thread.started = true;
    getcontext(&thread.start);
    thread.stack = std::unique_ptr<char[]>(new char[STACK]);
    thread.start.uc_stack.ss_sp = thread.stack.get();
    thread.start.uc_stack.ss_size = STACK;
    thread.start.uc_link = nullptr;
    makecontext(&thread.start, enter, 0);
    setcontext(&thread.start);
}

// Runs blocks that can reach one another's shared memory: a cluster, or one.
inline void run_cluster(std::vector<Block>& blocks, int threads, std::size_t shared, unsigned seed) {
    block = &blocks[0];
    block->random = (seed * 2654435761u + block->index.x * 40503u) | 1;
    std::deque<Shared> memory;
    std::vector<Thread*> order;
    for (Block& of : blocks) {
        of.random = block->random;
        of.threads.resize(threads);
        of.warps.resize(threads / 32);
        of.shared = memory.emplace_back(shared).start;
        for (int i = 0; i < threads; ++i) {
            of.threads[i].index.x = i;
            of.threads[i].of = &of;
            order.push_back(&of.threads[i]);
        }
    }
    // Now and then a warp falls behind, until the others wait for it or another one does.
    const Warp* behind = nullptr;
    for (bool running = true; running && failure.empty();) {
        for (std::size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[drawn(static_cast<unsigned>(i + 1))]);
        running = moved = false;
        for (Thread* thread : order)
            if (!thread->finished) {
                running = true;
                if (&thread->of->warps[thread->index.x / 32] != behind) resume(*thread);
            }
        if (moved) {
            if (drawn(16) == 0) behind = &order[0]->of->warps[order[0]->index.x / 32];
        } else if (behind != nullptr) {
            behind = nullptr;
        } else if (running && failure.empty()) {
            self = order[0];
            failure = "every thread waits, block " + std::to_string(self->of->index.x);
        }
    }
}

// Runs a grid, block by block; an empty string, or what went wrong.
inline const char* run(std::function<void()> kernel, unsigned blocks, int threads, std::size_t shared, unsigned seed) {
    failure.clear();
    body = std::move(kernel);
    struct sigaction catching {}, before {};
    catching.sa_sigaction = touched;
    catching.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &catching, &before);
    for (unsigned i = 0; i < blocks && failure.empty(); i += cluster) {
        std::vector<Block> current(cluster);
        for (unsigned rank = 0; rank < cluster; ++rank) {
            current[rank].index.x = i + rank;
            current[rank].count.x = blocks;
            current[rank].size.x = threads;
        }
        run_cluster(current, threads, shared, seed);
    }
    sigaction(SIGSEGV, &before, nullptr);
    return failure.c_str();
}

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

template <class... A>
const char* launch(void (*kernel)(A...), void** arguments, unsigned blocks, int threads, std::size_t shared, unsigned seed) {
    return run([=] { call(kernel, arguments, std::index_sequence_for<A...>{}); }, blocks, threads, shared, seed);
}

}  // namespace emulation
