// The functions of `hopper.cuh` on a CPU, each doing what the PTX manual says.
//
// TMA and wgmma are asynchronous: what they read and write, they do at once or only when their end is waited for.
#pragma once

// As `tensor_map.py` writes it.
struct TensorMap {
    uint64 address, columns, rows;
    uint64 box_columns, box_rows, swizzle;
    uint64 unused[10];
};
#define TENSOR_MAP const TensorMap
#define CLUSTER_KERNEL(THREADS, BLOCKS, SIZE)                           \
    static const unsigned emulated_cluster = emulation::cluster = SIZE; \
    KERNEL(THREADS, BLOCKS)

namespace emulation {

struct Mbarrier {
    int arrivals = 0, pending = 0;
    std::int64_t bytes = 0;
    unsigned parity = 0;

    void settle() {
        if (pending > 0 || bytes != 0) return;
        pending = arrivals;
        parity ^= 1;
        moved = true;
    }
};

// Products of one thread, in the order of their issue, and where its committed groups end.
struct Products {
    std::vector<std::function<void()>> open;
    std::deque<std::vector<std::function<void()>>> groups;
};

// What a cluster keeps of Hopper.
struct Hopper {
    std::map<const void*, Mbarrier> barriers;
    std::vector<std::function<void()>> copies;
    std::map<const Thread*, Products> products;
    // Who has written 16 bytes that wgmma and TMA do not see yet, by their address in units of them.
    std::map<std::uintptr_t, const Thread*> unfenced;
    Gathering gathering;
};

inline Block& block_of(unsigned rank) { return *(block - block->index.x % cluster + rank); }

// What lies there in another block of the cluster, whose threads must still be about.
template <typename T>
T* there(T* here, unsigned rank) {
    Block& other = block_of(rank);
    if (std::all_of(other.threads.begin(), other.threads.end(), [](auto& thread) { return thread.finished; }))
        fail("reaches shared memory of a block that has ended");
    return reinterpret_cast<T*>(other.shared + (reinterpret_cast<char*>(here) - block->shared));
}

inline Hopper& hopper() {
    auto& kept = block_of(0).extensions["hopper"];
    if (!kept) kept = std::make_shared<Hopper>();
    return *static_cast<Hopper*>(kept.get());
}

inline Mbarrier& mbarrier(const void* barrier) {
    const auto found = hopper().barriers.find(barrier);
    if (found == hopper().barriers.end()) fail("an mbarrier that was not initialised");
    return found->second;
}

inline void arrive(const void* barrier) {
    auto& at = mbarrier(barrier);
    if (at.pending == 0) fail("an mbarrier at which more threads arrive than it expects");
    --at.pending;
    at.settle();
}

// Some asynchronous copy may end now, if any is on its way.
inline void let_copies_end() {
    auto& copies = hopper().copies;
    if (copies.empty()) return;
    moved = true;
    if (drawn(4)) return;
    std::swap(copies[drawn(copies.size())], copies.back());
    const auto copy = std::move(copies.back());
    copies.pop_back();
    copy();
}

// Where 16 bytes lie after swizzling: bits 4 and up of the address are flipped by bits 7 and up.
inline std::uintptr_t swizzled(std::uintptr_t address, unsigned bytes) {
    return bytes ? address ^ (address >> 7 & (bytes / 16 - 1)) << 4 : address;
}

// Copies a box of a tensor map to `to`, now or later.
inline void copy_box(char* to, const TensorMap& map, int x, int y, const uint64* barrier) {
    if (reinterpret_cast<std::uintptr_t>(to) % (map.swizzle ? 1024 : 128)) fail("TMA to an address of the wrong alignment");
    auto copy = [=, &map] {
        for (uint64 row = 0; row < map.box_rows; ++row)
            for (uint64 column = 0; column < map.box_columns; ++column) {
                const auto at = reinterpret_cast<std::uintptr_t>(to) + row * map.box_columns + column;
                const bool inside = x + column < map.columns && y + row < map.rows;
                *reinterpret_cast<char*>(swizzled(at, static_cast<unsigned>(map.swizzle))) =
                    inside ? reinterpret_cast<const char*>(map.address)[(y + row) * map.columns + x + column] : 0;
            }
        auto& done = mbarrier(barrier);
        done.bytes -= static_cast<std::int64_t>(map.box_rows * map.box_columns);
        done.settle();
    };
    if (happens_early())
        copy();
    else
        hopper().copies.push_back(copy);
}

}  // namespace emulation

inline unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(static_cast<const char*>(pointer) - emulation::block->shared);
}

inline void barrier_init(uint64* barrier, int arrivals) {
    emulation::hopper().barriers[barrier] = emulation::Mbarrier{arrivals, arrivals};
}
inline void barrier_arrive(uint64* barrier, int rank) { emulation::arrive(emulation::there(barrier, rank)); }
inline void barrier_expect(uint64* barrier, int bytes) {
    emulation::mbarrier(barrier).bytes += bytes;
    emulation::arrive(barrier);
}
inline void barrier_wait(uint64* barrier, unsigned parity) {
    auto& at = emulation::mbarrier(barrier);
    emulation::wait_until([&] {
        if (at.parity == parity) emulation::let_copies_end();
        return at.parity != parity;
    });
}

inline void fence_async() {
    auto& unfenced = emulation::hopper().unfenced;
    for (auto at = unfenced.begin(); at != unfenced.end();)
        at = at->second == emulation::self ? unfenced.erase(at) : std::next(at);
}
inline void named_barrier(int id, int threads) { emulation::gather(emulation::block->barriers[id], threads); }
inline void store_for_async(void* to, const Words4& words) {
    *static_cast<Words4*>(to) = words;
    emulation::hopper().unfenced[reinterpret_cast<std::uintptr_t>(to) / 16] = emulation::self;
}

inline void load_box(void* to, const TensorMap& map, int x, int y, uint64* barrier) {
    emulation::copy_box(static_cast<char*>(to), map, x, y, barrier);
}
template <int BLOCKS>
void load_box_everywhere(void* to, const TensorMap& map, int x, int y, uint64* barrier) {
    for (int rank = 0; rank < BLOCKS; ++rank)
        emulation::copy_box(emulation::there(static_cast<char*>(to), rank), map, x, y, emulation::there(barrier, rank));
}
inline int cluster_rank() { return static_cast<int>(emulation::block->index.x % emulation::cluster); }
inline void cluster_sync() {
    emulation::gather(emulation::hopper().gathering, static_cast<int>(emulation::cluster * blockDim.x));
}

template <int>
void fewer_registers() {}
template <int>
void more_registers() {}

inline void wgmma_fence() {}
template <int TILES>
void settle(int (&)[TILES][4]) {}

namespace emulation {

// A matrix in shared memory as a descriptor has it: rows of 32 bytes, 8 of them `stride` apart from the next 8.
struct Matrix {
    unsigned start, stride, swizzle;

    explicit Matrix(uint64 descriptor)
        : start((descriptor & 0x3FFF) << 4), stride((descriptor >> 32 & 0x3FFF) << 4) {
        constexpr unsigned SWIZZLES[] = {0, 128, 64, 32};
        swizzle = SWIZZLES[descriptor >> 62];
        if (swizzle == 0 || (descriptor >> 49 & 7) != 0) fail("wgmma with a descriptor that is not emulated");
    }
    const int8* chunk(int row, int half) const {
        const auto rows = reinterpret_cast<std::uintptr_t>(block->shared) + start + row / 8 * stride + row % 8 * swizzle;
        const auto at = swizzled(rows + half * 16, swizzle);
        if (hopper().unfenced.count(at / 16)) fail("wgmma reads shared memory that was written without a fence");
        return reinterpret_cast<const int8*>(at);
    }
};

// This lane's part of d = a bᵀ (+ d), as `epilogue.cuh` has it.
inline void multiply(int (*d)[4], int tiles, uint64 a, uint64 b, bool accumulate, unsigned thread) {
    const Matrix left(a), right(b);
    const int row = thread / 32 % 4 * 16 + thread % 32 / 4;
    for (int j = 0; j < tiles; ++j)
        for (int i = 0; i < 4; ++i) {
            int sum = accumulate ? d[j][i] : 0;
            for (int half = 0; half < 2; ++half) {
                const int8* const x = left.chunk(row + i / 2 * 8, half);
                const int8* const y = right.chunk(8 * j + thread % 4 * 2 + i % 2, half);
                for (int k = 0; k < 16; ++k) sum += x[k] * y[k];
            }
            d[j][i] = sum;
        }
}

}  // namespace emulation

template <int TILES>
void wgmma(int (&d)[TILES][4], uint64 a, uint64 b, int accumulate) {
    const emulation::Exchanged<uint64> all("wgmma", a ^ b << 1);
    if (all[0] != (a ^ b << 1)) emulation::fail("wgmma with descriptors that differ within a warp");
    auto& open = emulation::hopper().products[emulation::self].open;
    open.push_back([=, &d, thread = emulation::self->index.x] { emulation::multiply(d, TILES, a, b, accumulate, thread); });
}
inline void wgmma_commit() {
    auto& [open, groups] = emulation::hopper().products[emulation::self];
    groups.push_back(std::move(open));
    open.clear();
    if (!emulation::happens_early()) return;
    for (auto& group : groups)
        for (auto& product : group) product();
    for (auto& group : groups) group.clear();
}
template <int PENDING>
void wgmma_wait() {
    auto& groups = emulation::hopper().products[emulation::self].groups;
    for (; groups.size() > PENDING; groups.pop_front())
        for (auto& product : groups.front()) product();
    emulation::Exchanged<int>("wgmma.wait", 0);
}
