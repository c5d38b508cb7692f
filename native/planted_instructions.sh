#!/usr/bin/env bash
# Plants mistakes into a listing that is right and expects check-instructions.awk to name each of them. Prints one line per
# mistake, as the check programs do. Run by `make check-instructions`; needs neither nvcc nor a disassembler.
#     planted_instructions.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")"

readonly OUT=$1
failed=0

# What the compiler asks for, as nvcc -ptx writes it.
ptx() {
    cat <<'PTX'
.visible .entry product_sm90(
	.param .align 64 .b8 product_sm90_param_0[128]
)
.maxntid 384, 1, 1
{
	barrier.cluster.arrive.relaxed.aligned;
	setmaxnreg.dec.sync.aligned.u32 40;
	cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [%r4];
	cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r1], [%rd1, {%r2, %r3}], [%r4], %rs1;
	setmaxnreg.inc.sync.aligned.u32 232;
	wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%f1}, %rd2, %rd3, p, 1, 1, 0, 0;
wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%f1}, %rd2, %rd3, p, 1, 1, 0, 0;
	wgmma.commit_group.sync.aligned;
	wgmma.wait_group.sync.aligned 1;
	wgmma.wait_group.sync.aligned 0;
	cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd4, {%r5, %r6}], [%r7];
}
PTX
}

# What there should be: the loop unrolled by two, as nvdisasm writes it.
sass() {
    cat <<'SASS'
	.section	.text.product_sm90,"ax",@progbits
.text.product_sm90:
        /*0010*/                   USETMAXREG.DEALLOC.CTAPOOL 0x28 ;
        /*0020*/              @!P0 UTMALDG.2D [UR4], [UR6] ;
        /*0030*/                   UTMALDG.2D.MULTICAST [UR4], [UR6], UR8 ;
        /*0040*/                   USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xe8 ;
        /*0050*/                   WARPGROUP.ARRIVE ;
        /*0060*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24, UP0 ;
        /*0070*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24, gsb0 ;
        /*0080*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0090*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*00a0*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24, gsb0 ;
        /*00b0*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*00c0*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*00d0*/                   UTMASTG.2D [UR4], [UR6] ;
	.section	.nv.shared.product_sm90,"aw",@nobits
SASS
}

# check NAME EXPECTED: runs the script on $OUT/NAME/kernels and looks for a text in what it complains about.
check() {
    local name=$1 expected=$2 said status=0
    said=$(awk -f check-instructions.awk "$OUT/$name/kernels/product_sm90.ptx" "$OUT/$name/kernels/product_sm90.sass" \
        2>&1 >"$OUT/$name/table") || status=$?
    # One mistake, one sentence.
    if [ $status -eq 0 ] || [[ $said == *$'\n'* ]] || [[ $said != "kernels: product_sm90.cu, product_sm90: "*"$expected"* ]]; then
        echo "FAILED $name: expected one complaint with '$expected', got status $status and: $said"
        failed=1
    else
        echo "ok $name: ${said#kernels: }"
    fi
}

# plant NAME FILE EDIT EXPECTED: edits the PTX or the listing with sed.
plant() {
    local name=$1 file=$2 edit=$3 expected=$4 folder=$OUT/$1/kernels
    mkdir -p "$folder"
    ptx >"$folder/product_sm90.ptx"
    sass >"$folder/product_sm90.sass"
    sed "$edit" "$folder/product_sm90.$file" >"$folder/edited"
    if cmp -s "$folder/edited" "$folder/product_sm90.$file"; then
        echo "FAILED $name: $edit changes nothing"
        failed=1
        return
    fi
    mv "$folder/edited" "$folder/product_sm90.$file"
    check "$name" "$expected"
}

rm -rf "$OUT"
mkdir -p "$OUT/right/kernels"
ptx >"$OUT/right/kernels/product_sm90.ptx"
sass >"$OUT/right/kernels/product_sm90.sass"
row=$(awk -f check-instructions.awk "$OUT"/right/kernels/product_sm90.{ptx,sass} | sed -n 2p | tr -s ' ')
if [ "$row" = 'product_sm90 4 2 3 2 1 1 2 0 product_sm90.cu' ]; then
    echo "ok right: $row"
else
    echo "FAILED right: expected 4 HGMMA in 2 groups, 3 waits, 2 loads, 1 multicast, 1 store, 2 USETMAXREG, got $row"
    failed=1
fi

plant no_products ptx '/wgmma/d' 'no wgmma'
plant products_dropped sass '/HGMMA/d; /DEPBAR/d' 'wgmma of the source became no HGMMA'
plant no_loads ptx '/shared::cluster\.global/d; /cluster\.arrive/d' 'no tensor load'
plant no_stores ptx '/bulk_group/d' 'no tensor store'
plant stores_dropped sass 's/UTMASTG.*/STG.E.128 [R2], R4 ;/' 'tensor store of the source became no UTMASTG'
plant multicast_dropped sass 's/\.MULTICAST//' 'became no UTMALDG.MULTICAST'
plant cluster_without_multicast ptx 's/\.multicast::cluster//' 'no multicast load; its blocks form clusters'
plant registers_not_raised sass '/TRY_ALLOC/d' 'no USETMAXREG.TRY_ALLOC'
plant registers_not_lowered sass '/DEALLOC/d' 'no USETMAXREG.DEALLOC'
plant spilled sass 's/\(.*\)WARPGROUP.ARRIVE ;/&\n\1@P1 STL.64 [R1+0x8], R2 ;/' '1 accesses to local memory'
plant serialised sass 's/R24, UP0 ;/R24, UP0, gsb0 ;/' 'wgmma serialised, gsb0 ends groups of 1'
plant last_group_open sass '/00a0/s/, gsb0//' 'belong to no group'
plant never_committed ptx '/commit_group/d' 'without commit_group'
plant waits_for_all sass 's/gsb0, 0x1/gsb0, 0x0/' 'wait_group<1> became no'
plant waits_too_often sass 's/\(.*\)HGMMA.*/&\n\1WARPGROUP.DEPBAR.LE gsb0, 0x0 ;/' '7 WARPGROUP.DEPBAR for 2 groups, expected 4 at most'
plant not_compiled sass 's/product_sm90/other/' 'not in the listing'
exit $failed
