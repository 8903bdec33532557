// One function an instruction that Hopper (sm_90a) has and C++ no name for. `emulation_hopper.cuh` has them for a CPU.
#pragma once

// A tensor map as cuTensorMapEncodeTiled writes it.
struct alignas(64) TensorMap {
    uint64 opaque[16];
};
#define TENSOR_MAP const __grid_constant__ TensorMap

// A kernel whose blocks come in clusters of SIZE, which reach one another's shared memory.
#define CLUSTER_KERNEL(THREADS, BLOCKS, SIZE) KERNEL(THREADS, BLOCKS) __cluster_dims__(SIZE, 1, 1)

// Which block of its cluster this is.
DEVICE int cluster_rank() {
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// Until all threads of the cluster have come; what they wrote before, initialised mbarriers included, is then visible.
DEVICE void cluster_sync() {
    asm volatile(
        "fence.mbarrier_init.release.cluster;\n"
        "barrier.cluster.arrive.release;\n"
        "barrier.cluster.wait.acquire;" ::
            : "memory");
}

// An mbarrier: a phase ends when `arrivals` threads have come and all the bytes expected in it have landed.
DEVICE void barrier_init(uint64* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// At the barrier that lies there in block `rank` of the cluster.
DEVICE void barrier_arrive(uint64* barrier, int rank) {
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        "}" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
}
// Arrives, and expects so many bytes more in this phase.
DEVICE void barrier_expect(uint64* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
// Until the phase of this parity has ended: 0 for the first, 1 for the second and for the one before the first.
DEVICE void barrier_wait(uint64* barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// What this thread has written to shared memory becomes visible to wgmma and TMA.
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Until `threads` threads, whole warps, have come; 0 is the barrier of __syncthreads.
DEVICE void named_barrier(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// 16 bytes to shared memory, for wgmma or TMA to read after fence_async.
DEVICE void store_for_async(void* to, const Words4& words) { *static_cast<Words4*>(to) = words; }

// The box of a tensor map from column x and row y on: rows one after the other, zeros beyond the tensor's edges.
DEVICE void load_box(void* to, const TensorMap& map, int x, int y, uint64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            shared_address(to)),
        "l"(&map), "r"(x), "r"(y), "r"(shared_address(barrier))
        : "memory");
}
// The same into each block of the cluster, and completing at each one's barrier.
template <int BLOCKS>
DEVICE void load_box_everywhere(void* to, const TensorMap& map, int x, int y, uint64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
        "l"(&map), "r"(x), "r"(y), "r"(shared_address(barrier)), "h"(static_cast<uint16>((1 << BLOCKS) - 1))
        : "memory");
}

// A warpgroup's registers a thread, for the rest of the kernel.
template <int REGISTERS>
DEVICE void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
DEVICE void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Before a warpgroup's first wgmma, and wherever registers that one uses were touched.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most PENDING of the warpgroup's groups are on their way.
template <int PENDING>
DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Keeps the compiler from reading sums earlier than this.
template <int TILES>
DEVICE void settle(int (&sums)[TILES][4]) {
    UNROLL for (int j = 0; j < TILES; ++j)
        UNROLL for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(sums[j][i])::"memory");
}

#define NAMES_10(TENS)                                                                      \
    "%" #TENS "0, %" #TENS "1, %" #TENS "2, %" #TENS "3, %" #TENS "4, %" #TENS "5, %" #TENS \
    "6, %" #TENS "7, %" #TENS "8, %" #TENS "9, "
#define SUMS_4(J) "+r"(d[J][0]), "+r"(d[J][1]), "+r"(d[J][2]), "+r"(d[J][3])
#define SUMS_16(J) SUMS_4(J), SUMS_4(J + 1), SUMS_4(J + 2), SUMS_4(J + 3)
#define SUMS_32(J) SUMS_16(J), SUMS_16(J + 4)
#define WGMMA(N, NAMES, A, B, ACCUMULATE, ...)                                                                   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ACCUMULATE ", 0;\n"                                         \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8 {" NAMES "}, " A ", " B ", p;\n}"          \
                 : __VA_ARGS__                                                                                   \
                 : "l"(a), "l"(b), "r"(accumulate)                                                               \
                 : "memory")

// d = a bᵀ, + d if `accumulate`, by a warpgroup: a 64 × 32, b 8 TILES × 32, int8 in shared memory (see `Operand`).
template <int TILES>
DEVICE void wgmma(int (&d)[TILES][4], uint64 a, uint64 b, int accumulate) {
    static_assert(TILES == 8 || TILES == 16 || TILES == 32);
    if constexpr (TILES == 8)
        WGMMA(64, NAMES_10() NAMES_10(1) NAMES_10(2) "%30, %31", "%32", "%33", "%34", SUMS_32(0));
    else if constexpr (TILES == 16)
        WGMMA(128, NAMES_10() NAMES_10(1) NAMES_10(2) NAMES_10(3) NAMES_10(4) NAMES_10(5) "%60, %61, %62, %63", "%64",
              "%65", "%66", SUMS_32(0), SUMS_32(8));
    else
        WGMMA(256, NAMES_10() NAMES_10(1) NAMES_10(2) NAMES_10(3) NAMES_10(4) NAMES_10(5) NAMES_10(6) NAMES_10(7)
              NAMES_10(8) NAMES_10(9) NAMES_10(10) NAMES_10(11) "%120, %121, %122, %123, %124, %125, %126, %127", "%128",
              "%129", "%130", SUMS_32(0), SUMS_32(8), SUMS_32(16), SUMS_32(24));
}
