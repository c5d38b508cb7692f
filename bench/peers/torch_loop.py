"""PyTorch on the CPU, the OLMoE-1B-7B layer as a loop over experts: python bench/peers/torch_loop.py

The shape, the token counts and the random inputs mirror LayerState; prints milliseconds per forward pass.
Needs torch (measured: 2.13.0+cpu); nothing in the build or in CI runs this.
"""

import os
import time

import torch

HIDDEN, INTERMEDIATE, EXPERTS, TOP_K = 2048, 1024, 64, 8
BATCHES, MIN_SECONDS, MAX_PASSES = 16, 6, 40


def layer(x, router, gate_up, down):
    weights, ids = torch.softmax((x @ router.T).float(), -1).topk(TOP_K, -1)
    y = torch.zeros_like(x)
    for expert in ids.unique().tolist():
        token, slot = torch.where(ids == expert)
        gate, up = (x[token] @ gate_up[expert].T).chunk(2, -1)
        rows = (torch.nn.functional.silu(gate) * up) @ down[expert].T
        y.index_add_(0, token, rows * weights[token, slot, None].to(x.dtype))
    return y


def random(dtype, *shape):
    return (torch.randn(*shape) * shape[-1] ** -0.5).to(dtype)


def main():
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        router = random(dtype, EXPERTS, HIDDEN)
        gate_up = random(dtype, EXPERTS, 2 * INTERMEDIATE, HIDDEN)
        down = random(dtype, EXPERTS, HIDDEN, INTERMEDIATE)
        for tokens in (1, 16, 128, 512):
            inputs = [torch.randn(tokens, HIDDEN).to(dtype) for _ in range(BATCHES)]
            layer(inputs[0], router, gate_up, down)
            times, start = [], time.perf_counter()
            while time.perf_counter() - start < MIN_SECONDS and len(times) < MAX_PASSES:
                before = time.perf_counter()
                layer(inputs[len(times) % BATCHES], router, gate_up, down)
                times.append(1e3 * (time.perf_counter() - before))
            times.sort()
            print(f"{dtype} T={tokens}: {times[len(times) // 2]:.1f} ms [{times[0]:.1f}-{times[-1]:.1f}]", flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
