// Where a tile of bytes lies in shared memory, and which tile a block computes.
#pragma once

// The place of 16 bytes, `chunk` of `row`, in a tile with rows of BYTES. Rows are turned against one another, so that
// the 8 rows of a matrix of ldmatrix (TURN 1), or 4 rows of 32 bytes (TURN 2, what half a warp reads 8 bytes a lane),
// fall on all 32 banks. Rows 8 apart are turned alike.
template <int BYTES, int TURN>
DEVICE constexpr int place(int row, int chunk) {
    constexpr int ROWS = BYTES < 128 ? 128 / BYTES : 1, CHUNKS = BYTES < 128 ? BYTES / 16 : 8;
    return row * BYTES + (chunk ^ row / ROWS * TURN % CHUNKS) * 16;
}

struct Position {
    int64 row, column;
};

// The tile of block `index`, of `down` × `across`: GROUP rows of tiles at a time, whose operands stay in L2.
template <int GROUP>
DEVICE constexpr Position tile_of(int64 index, int64 down, int64 across) {
    const int64 top = index / (GROUP * across) * GROUP, inside = index % (GROUP * across);
    const int64 height = least<int64>(down - top, GROUP);
    return {top + inside % height, inside / height};
}
