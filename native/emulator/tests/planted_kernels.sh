#!/usr/bin/env bash
# Plants mistakes into copies of the real kernels and expects the race build to catch each of them: the check program of
# the kernel has to fail. Prints one line per mistake, as the check programs do. Run by `make check-planted`, which sets
#
#   CXX, FLAGS, LINK   how a kernel is compiled for the race build, and what it is linked with
#   RACE, OBJECTS      folder of the race build, and what it consists of, in the order of linking
#   OUT                where the copies go
set -euo pipefail

# plant NAME FILE PROGRAM TEXT REPLACEMENT [OPERATION]: replaces the first TEXT in a copy of FILE of ../kernels. Where that is
# not an operation's own, OPERATION is the one that is compiled with it, unless given that which PROGRAM is named after.
plant() {
    local name=$1 file=$2 program=$3 text=$4 replacement=$5
    local folder=$OUT/$name content op objects
    op=${program#kernels_}
    [[ $file != *.cu ]] || op=${file%.cu}
    op=${6:-$op}
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
check rare_groups_read_before_they_are_judged route_rare.cu kernels_route_rare \
    'judge_by_best(row, group);
    }
    __syncwarp();' 'judge_by_best(row, group);
    }'
check rare_keys_of_the_token_before route_rare.cu kernels_route_rare \
    '// The next token'"'"'s keys may come.
        __syncwarp();' ''
check rare_inactive_experts_selected route_rare.cu kernels_route_rare \
    'row.is_active(id) ? rank::key_of(own) : kAbsent' 'rank::key_of(own)'
check rare_sum_that_stops_too_late route_rare.cu kernels_route_rare \
    'k >= rule.least && (sum' 'k > rule.least && (sum'
check hash_finds_an_expert_twice route_hash.cu kernels_route_hash \
    'is_among(expert, before, k)' 'is_among(expert, before, k - 1)'
check hash_behind_the_table route_hash.cu kernels_route_hash \
    'id < vocabulary' 'id <= vocabulary'
check scale_of_no_expert route_scale.cu kernels_route_hash \
    'id >= 0' 'id >= -1'
check columns_of_one_warp route_expert_choice.cu kernels_route_batch \
    'sum += warp_sums[other];' ''
check counts_of_another_digit route_expert_choice.cu kernels_route_batch \
    'histogram[digit] = 0;' ''
check tile_turned_before_it_is_full route_expert_choice.cu kernels_route_batch \
    ': rank::kAbsent;
        }
        __syncthreads();' ': rank::kAbsent;
        }'
check later_tokens_of_equals_taken route_expert_choice.cu kernels_route_batch \
    'equals -= total;' ''
check sinkhorn_done_too_early route_sinkhorn.cu kernels_route_batch \
    'change < tolerance' 'change > tolerance'
check sinkhorn_scales_changed_while_read route_sinkhorn.cu kernels_route_batch \
    '!arrivals::is_last(counter, gridDim.x)' '!arrivals::is_last(counter, 1)'
check sinkhorn_sums_of_half_a_chunk route_sinkhorn.cu kernels_route_batch \
    'row_scales[i] = sum > 0.0 ? 1.0 / sum : 0.0;
        }
    }
    __syncthreads();' 'row_scales[i] = sum > 0.0 ? 1.0 / sum : 0.0;
        }
    }'
check auction_of_losers_not_counted_anew route_balanced.cu kernels_route_batch \
    '*losers = 0;' ''
check auction_keeps_a_share_too_many route_balanced.cu kernels_route_batch \
    'count == kept.share' 'count > kept.share'
check auction_later_of_equals_kept route_balanced.cu kernels_route_batch \
    'other_bid == bid && other_token > token' 'other_bid == bid && other_token < token'
check queue_of_equals_reversed route_capacity.cu kernels_route_capacity \
    'base + i < token' 'base + i > token'
check slots_moved_onto_each_other route_capacity.cu kernels_route_capacity \
    '|| has(token, to)' ''
check places_of_the_batch_before route_capacity.cu kernels_route_capacity \
    'used[queue] = 0;
    }
    __syncthreads();' 'used[queue] = 0;
    }'
check tile_mixed_while_it_is_filled common/soft_mix.cuh kernels_soft_mix \
    'add_tile(tile, sums);
            __syncthreads();' 'add_tile(tile, sums);' soft_dispatch
check slot_of_parts_not_yet_there soft_dispatch.cu kernels_soft_mix \
    'max = fmaxf(max, parts[i][own]);
    }
    __syncthreads();' 'max = fmaxf(max, parts[i][own]);
    }'
check tokens_of_one_slot_too_few soft_combine.cu kernels_soft_mix \
    'long long slot = lane; slot < slots' 'long long slot = lane + 1; slot < slots'
check neurons_of_unknown_experts singleton_experts.cu kernels_singleton_experts \
    'id >= 0 && id < num_experts' 'id >= 0 && id <= num_experts'
check moments_read_before_they_are_there shape_logits.cu kernels_shape_logits \
    'all have read it.
            __syncwarp();' 'all have read it.'
check rows_behind_the_last_normalised normalise_rows.cu kernels_soft_mix \
    'if (row >= rows)' 'if (row > rows)'
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
