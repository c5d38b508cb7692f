#!/usr/bin/env bash
# Plants mistakes into copies of the real kernels and expects the race build to catch each of them: the check program of
# the kernel has to fail. Prints one line per mistake, as the check programs do. Run by `make check-planted`, which sets
#
#   CXX, FLAGS, LINK   how a kernel is compiled for the race build, and what it is linked with
#   RACE, OBJECTS      folder of the race build, and what it consists of, in the order of linking
#   OUT                where the copies go
set -euo pipefail

# plant NAME FILE PROGRAM TEXT REPLACEMENT: replaces the first TEXT in a copy of FILE of ../kernels.
plant() {
    local name=$1 file=$2 program=$3 text=$4 replacement=$5
    local folder=$OUT/$name content op objects
    op=${program#kernels_}
    rm -rf "$folder"
    mkdir -p "$folder"
    cp -R ../kernels "$folder/kernels"
    content=$(<"../kernels/$file")
    if [ "${content/"$text"/}" = "$content" ]; then
        echo "FAILED $name: kernels/$file no longer contains: $text"
        return 1
    fi
    printf '%s\n' "${content/"$text"/"$replacement"}" >"$folder/kernels/$file"
    # shellcheck disable=SC2086  # several words
    $CXX -I"$folder/kernels" $FLAGS -c "$folder/kernels/$op.cu" -o "$folder/$op.o" || return 1
    # Before the other kernels: of what they share in common/ the linker keeps the first copy.
    objects=${OBJECTS/"$RACE/objects/kernels-$op.cu.o"/}
    objects=${objects/"$RACE/objects/kernels-"/"$folder/$op.o $RACE/objects/kernels-"}
    # shellcheck disable=SC2086
    $CXX -o "$folder/check" $objects \
        "$RACE/objects/emulator-tests-$program.cpp.o" $LINK || return 1
    # The first that is caught suffices: grep then closes the pipe, which ends the program.
    { timeout 300 "$folder/check" 2>&1 || true; } | grep -m 1 '^FAILED' >"$folder/log" || true
    if [ ! -s "$folder/log" ]; then
        echo "FAILED $name: was not caught"
        return 1
    fi
    echo "ok $name: $(cut -c 8-200 "$folder/log")"
}

# check NAME ...: plants in the background, as many at a time as there are cores.
names=()
check() {
    names+=("$1")
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
        sleep 0.1
    done
    # A failure of the compiler is one too.
    { plant "$@" || echo "FAILED $1: see above"; } >"$OUT/$1.line" &
}

mkdir -p "$OUT"
check ties_take_the_higher_id common/rank.cuh kernels_route \
    'if (key > best.key && candidate' 'if (key >= best.key && candidate'
check nan_is_selected common/rank.cuh kernels_route \
    'constexpr uint32_t kNan = 1;' 'constexpr uint32_t kNan = 0xfffffff0u;'
check warps_share_their_keys route.cu kernels_route \
    'keys_of_warps[threadIdx.x / 32];' 'keys_of_warps[0];'
check group_out_by_one common/route_select.cuh kernels_route \
    '(kept >> (id / width) & 1)' '(kept >> ((id + 1) / width) & 1)'
check rows_handed_out_too_early common/expert_sort.cuh kernels_sort_by_expert \
    'int row = valid ? next[id] + peers.before : -1;
        __syncwarp();' 'int row = valid ? next[id] + peers.before : -1;'
check table_read_before_it_is_zero sort_by_expert.cu kernels_sort_by_expert \
    'table[i] = 0;
        }
        __syncthreads();' 'table[i] = 0;
        }'
check slots_without_expert_scattered common/expert_sort.cuh kernels_sort_by_expert \
    'if (valid) {
            row_to_slot[row] = slot;' 'if (slot < run.to) {
            row_to_slot[row] = slot;'
check sums_overwritten_too_early common/expert_sort.cuh kernels_sort_by_expert \
    'before += other < warp ? sum : 0;
        all += sum;
    }
    __syncthreads();' 'before += other < warp ? sum : 0;
        all += sum;
    }'
check histogram_without_atomics sort_by_expert.cu kernels_sort_by_expert \
    'atomicAdd(&row[id], __popc(peers.lanes));' 'row[id] += __popc(peers.lanes);'
check arrival_without_fence common/arrivals.cuh kernels_decode_route \
    '__threadfence();
    bool last' 'bool last'
check counter_that_never_wraps common/arrivals.cuh kernels_decode_route \
    'atomicInc(counter, count - 1)' 'atomicAdd(counter, 1u)'
check one_share_added_twice decode_route.cu kernels_decode_route \
    'part = on.part(share, token)' 'part = on.part(0, token)'
check halves_of_a_load_mixed_up decode_route.cu kernels_decode_route \
    'second[4] = {rows[i][0].z, rows[i][1].z, rows[i][0].w, rows[i][1].w}' \
    'second[4] = {rows[i][0].w, rows[i][1].w, rows[i][0].z, rows[i][1].z}'
check pieces_written_while_they_are_added decode_route.cu kernels_decode_route \
    '// The pieces may be written anew.
    __syncthreads();' ''
check logits_routed_before_every_lane_sees_them decode_route.cu kernels_decode_route \
    '// Every lane sees the logits.
        __syncwarp();' ''
check absent_tokens_routed decode_route.cu kernels_decode_route \
    'if (index >= present)' 'if (index > present)'
check rows_beyond_the_last_written permute.cu kernels_permute \
    'row >= expert_offsets[groups]' 'row > expert_offsets[groups]'
check factors_of_one_word jitter.cu kernels_jitter \
    'words.at[j], epsilon' 'words.at[0], epsilon'
check factors_behind_the_row jitter.cu kernels_jitter \
    'if (i + j < hidden)' 'if (i < hidden)'
check stage_read_before_it_is_there grouped_gemm_mma.cu kernels_grouped_gemm_mma \
    'cp_async_wait_group<S::kStages - 2>' 'cp_async_wait_group<S::kStages - 1>'
check stage_filled_while_it_is_read grouped_gemm_mma.cu kernels_grouped_gemm_mma \
    '__syncthreads();
        int next' 'int next'
check sums_over_a_stage_that_is_read grouped_gemm_mma.cu kernels_grouped_gemm_mma \
    '__syncthreads();
    float* shared' 'float* shared'
check tile_taken_before_it_is_found common/group_tiles.cuh kernels_grouped_gemm_mma \
    '__syncthreads();
    }
    return' '}
    return'
check inputs_behind_the_row grouped_gemm_mma.cu kernels_grouped_gemm_mma \
    'row >= 0 && column < width' 'row >= 0'
check rows_of_the_next_group grouped_gemm_mma.cu kernels_grouped_gemm_mma \
    'min(S::kRows, found.to - row)' 'S::kRows'
check columns_of_a_fragment_swapped grouped_gemm_mma.cu kernels_grouped_gemm_mma \
    'pair * 16 + lane / 16 * 8 + lane % 8' 'pair * 16 + lane % 16'
check stage_taken_before_its_turn grouped_gemm_sm90.cu kernels_grouped_gemm_sm90 \
    'ptx::mbarrier_wait(own, phase);' ''
check gathered_rows_not_shown_to_wgmma grouped_gemm_sm90.cu kernels_grouped_gemm_sm90 \
    'ptx::fence_proxy_async();' ''
check too_many_copies_under_way grouped_gemm_sm90.cu kernels_grouped_gemm_sm90 \
    'S::kStages - 2;' 'S::kStages - 1;'
check stage_handed_back_while_it_is_read grouped_gemm_sm90.cu kernels_grouped_gemm_sm90 \
    'ptx::wgmma_wait_group<1>();' ''
check both_blocks_fetch_the_same_half grouped_gemm_sm90.cu kernels_grouped_gemm_sm90 \
    'rank == 0 ? first : second' 'first'
check chunk_written_while_tma_reads_it common/wgmma_store.cuh kernels_grouped_gemm_sm90 \
    'ptx::bulk_wait_group_read<kBuffers - 1>();' ''
check stage_returned_by_a_lane_ahead_of_its_warp grouped_gemm_sm90.cu kernels_grouped_gemm_sm90 \
    '__syncwarp();
        release' 'release'
check decode_rows_not_shown_to_wgmma decode_sm90.cu kernels_decode_sm90 \
    'ptx::fence_proxy_async();' ''
check decode_copies_too_many_under_way decode_sm90.cu kernels_decode_sm90 \
    'kUnderWay = kStages - 2' 'kUnderWay = kStages - 1'
check decode_does_not_wait_for_the_router decode_sm90.cu kernels_decode_sm90 \
    'ptx::grid_dependency_wait();' ''
check decode_stage_read_before_it_landed decode_mma.cu kernels_decode_mma \
    'ptx::cp_async_wait_group<kStages - 2>();' 'ptx::cp_async_wait_group<kStages - 1>();'
check decode_parts_of_one_slice_too_few common/decode_sums.cuh kernels_decode_mma \
    'int slice = 0; slice < slices' 'int slice = 1; slice < slices'
check decode_rows_of_the_next_expert common/decode_units.cuh kernels_decode_mma \
    'min(kRows, to - row)' 'kRows'
wait
failed=0
for name in "${names[@]}"; do
    cat "$OUT/$name.line"
    ! grep -q '^FAILED' "$OUT/$name.line" || failed=1
done
exit "$failed"
