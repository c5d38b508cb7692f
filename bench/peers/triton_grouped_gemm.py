"""A grouped product in Triton, as plainly as its language allows: a yardstick for torch_moe.py on a GPU.

Programs stay and take tiles in turn; an expert's tiles follow those of the expert before. Operands
come by tensor descriptors (TMA on compute capability 9.0), sums are F32, results are BF16.

    python bench/peers/triton_grouped_gemm.py     compiles every configuration for compute capability
                                                  9.0, which needs no GPU, and says what came of it
"""

import triton
import triton.language as tl

BLOCKS = [  # rows, columns, inputs, warps, stages
    (128, 256, 64, 8, 3),
    (128, 256, 64, 8, 4),
    (128, 128, 64, 8, 4),
    (128, 128, 64, 4, 4),
    (64, 256, 64, 4, 4),
    (64, 128, 64, 4, 4),
    (64, 128, 128, 4, 3),
    (64, 64, 128, 4, 4),
]
NAMES = ("BLOCK_ROWS", "BLOCK_COLUMNS", "BLOCK_INPUTS")
CONFIGS = [
    triton.Config(dict(zip(NAMES, block)), num_warps=warps, num_stages=stages)
    for *block, warps, stages in BLOCKS
]


@triton.jit
def grouped_gemm_kernel(
    x,  # [rows, inputs], sorted by expert
    weight,  # [experts * columns, inputs]
    ends,  # [experts] i32, past the last row of each
    y,  # [rows, columns]
    rows,
    experts,
    columns,
    inputs,
    rows_class,  # of like numbers of rows, which share a configuration
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
):
    x_blocks = tl.make_tensor_descriptor(
        x, shape=[rows, inputs], strides=[inputs, 1], block_shape=[BLOCK_ROWS, BLOCK_INPUTS]
    )
    weight_blocks = tl.make_tensor_descriptor(
        weight,
        shape=[experts * columns, inputs],
        strides=[inputs, 1],
        block_shape=[BLOCK_COLUMNS, BLOCK_INPUTS],
    )
    column_tiles = tl.cdiv(columns, BLOCK_COLUMNS)
    tile = tl.program_id(0)
    before = 0  # tiles of the experts so far
    start = 0
    for expert in range(experts):
        end = tl.load(ends + expert)
        row_tiles = tl.cdiv(end - start, BLOCK_ROWS)
        while tile < before + row_tiles * column_tiles:
            # Rows first: programs that run together read the same weights.
            row = start + (tile - before) % row_tiles * BLOCK_ROWS
            column = (tile - before) // row_tiles * BLOCK_COLUMNS
            sums = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
            for step in range(tl.cdiv(inputs, BLOCK_INPUTS)):
                a = x_blocks.load([row, step * BLOCK_INPUTS])
                b = weight_blocks.load([expert * columns + column, step * BLOCK_INPUTS])
                sums = tl.dot(a, b.T, sums)
            # Both descriptors reach past the expert; what is stored does not.
            at_rows = row + tl.arange(0, BLOCK_ROWS)
            at_columns = column + tl.arange(0, BLOCK_COLUMNS)
            place = y + at_rows.to(tl.int64)[:, None] * columns + at_columns[None, :]
            inside = (at_rows[:, None] < end) & (at_columns[None, :] < columns)
            tl.store(place, sums.to(y.dtype.element_ty), mask=inside)
            tile += tl.num_programs(0)
        before += row_tiles * column_tiles
        start = end


KEY = ["rows_class", "columns", "inputs"]
tuned_kernel = triton.autotune(configs=CONFIGS, key=KEY)(grouped_gemm_kernel)


def grouped_gemm(x, weight, ends):
    """x [rows, inputs] times weight [experts, columns, inputs] of each row's expert, in BF16.

    The first call with a shape tries every configuration, so it may not be captured."""
    import torch

    def scratch(size, alignment, stream):
        return torch.empty(size, dtype=torch.int8, device="cuda")

    triton.set_allocator(scratch)  # for the descriptors
    experts, columns, inputs = weight.shape
    y = torch.empty(len(x), columns, dtype=x.dtype, device=x.device)
    programs = torch.cuda.get_device_properties(x.device).multi_processor_count
    rows_class = len(x).bit_length()
    tuned_kernel[(programs,)](x, weight, ends, y, len(x), experts, columns, inputs, rows_class)
    return y


def compile_all():
    """Machine code of each configuration, without a device."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = ["*bf16", "*bf16", "*i32", "*bf16"] + ["i32"] * 5 + ["constexpr"] * 3
    names = grouped_gemm_kernel.arg_names
    # Addresses and sizes are multiples of 16, which is what Triton finds at run time too.
    attributes = {(i,): [["tt.divisibility", 16]] for i in (0, 1, 2, 3, 6, 7)}
    for config in CONFIGS:
        source = ASTSource(
            fn=grouped_gemm_kernel,
            signature=dict(zip(names, types)),
            constexprs={(names.index(name),): value for name, value in config.kwargs.items()},
            attrs=attributes,
        )
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        ptx = kernel.asm["ptx"]
        loads = ptx.count("cp.async.bulk.tensor.2d.shared::")
        print(
            f"{config}: {ptx.count('wgmma.mma_async')} wgmma, {loads} tensor loads,"
            f" {kernel.metadata.shared} bytes of shared memory"
        )


if __name__ == "__main__":
    compile_all()
