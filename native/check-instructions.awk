# Compares what kernels for sm_90a ask for (PTX) with what ptxas made of it (a listing of cuobjdump -sass or nvdisasm): nothing
# dropped, wgmma not serialised, nothing in local memory. Kernels of ../kernels also have to multiply and copy the way that Hopper
# is fast at. Prints how many of these instructions each kernel has.
#     awk -f check-instructions.awk NAME.ptx NAME.sass ...

function complain(text) {
    print "kernels: " text > "/dev/stderr"
    failures++
}

# The source says what is asked; an instruction of that kind must have come of it.
function kept(kernel, asked, opcode, remedy) {
    if ((kernel, asked) in wanted && !((kernel, opcode) in found)) {
        complain(source[kernel] ", " kernel ": " asked " of the source became no " opcode "; " remedy)
    }
}

function need(kernel, asked, remedy) {
    if (!((kernel, asked) in wanted)) {
        complain(source[kernel] ", " kernel ": no " asked "; " remedy)
    }
}

FNR == 1 {
    ptx = FILENAME ~ /\.ptx$/
    operation = FILENAME !~ /\/measure\//
    file = FILENAME
    sub(/.*\//, "", file)
    sub(/\.(ptx|sass)$/, ".cu", file)
    kernel = ""
}

# What was asked for.

ptx && /\.entry / {
    kernel = $0
    sub(/.*\.entry[ \t]+/, "", kernel)
    sub(/[^A-Za-z0-9_$].*/, "", kernel)
    names[++count] = kernel
    source[kernel] = file
    must[kernel] = operation
    run = 0
    next
}

ptx && /wgmma\.mma_async/ {
    wanted[kernel, "wgmma"] = 1
    run++
}

ptx && /wgmma\.commit_group/ {
    if (run > 0) {
        commits[kernel]++
        if (!(kernel in asked_size) || run < asked_size[kernel]) {
            asked_size[kernel] = run
        }
    }
    run = 0
}

ptx && /wgmma\.wait_group/ {
    depth = $NF + 0
    if (!((kernel, depth) in waits_for)) {
        waits_for[kernel, depth] = 1
        depths[kernel] = depths[kernel] " " depth
    }
    waits[kernel]++
}

ptx && /setmaxnreg\.(inc|dec)\./ {
    wanted[kernel, /\.inc\./ ? "setmaxnreg.inc" : "setmaxnreg.dec"] = 1
}

ptx && /cp\.async\.bulk\.tensor.*\.shared::(cluster|cta)\.global/ {
    wanted[kernel, "tensor load"] = 1
    if (/multicast::cluster/) {
        wanted[kernel, "multicast load"] = 1
    }
}

ptx && /cp\.async\.bulk\.tensor.*\.global\.shared::cta/ {
    wanted[kernel, "tensor store"] = 1
}

ptx && /barrier\.cluster\.|\.reqnctapercluster/ {
    clustered[kernel] = 1
}

ptx {
    next
}

# What there is.

/Function : / {
    kernel = $NF
    listed[kernel] = 1
    run = 0
    next
}

/^[ \t]*\.section[ \t]/ {
    kernel = ""
    if ($2 ~ /^\.text\./) {
        kernel = $2
        sub(/^\.text\./, "", kernel)
        sub(/,.*/, "", kernel)
        listed[kernel] = 1
        run = 0
    }
    next
}

kernel == "" || !/^[ \t]*\/\*[0-9a-f]+\*\/[ \t]/ {
    next
}

{
    text = $0
    sub(/^[ \t]*\/\*[0-9a-f]+\*\/[ \t]+/, "", text)
    sub(/^@!?U?P[0-9T]+[ \t]+/, "", text)
    opcode = text
    sub(/[ \t;].*/, "", opcode)
    family = opcode
    sub(/\..*/, "", family)
}

family == "HGMMA" || family == "QGMMA" || family == "IGMMA" {
    found[kernel, "HGMMA"] = 1
    products[kernel]++
    run++
    if (text ~ /gsb0/) {
        groups[kernel]++
        if (!(kernel in found_size) || run < found_size[kernel]) {
            found_size[kernel] = run
        }
        run = 0
    }
    open[kernel] = run
}

family == "WARPGROUP" && opcode ~ /DEPBAR/ {
    found_waits[kernel]++
    depth = text
    sub(/.*gsb0,[ \t]*0x/, "", depth)
    found_wait[kernel, depth + 0] = 1
}

family == "LDL" || family == "STL" {
    local[kernel]++
}

family == "UTMALDG" || family == "UTMASTG" || family == "USETMAXREG" || family == "R2UR" {
    found[kernel, family] = 1
    tally[kernel, family]++
}

opcode ~ /^UTMALDG.*MULTICAST/ {
    found[kernel, "UTMALDG.MULTICAST"] = 1
    tally[kernel, "MULTICAST"]++
}

opcode ~ /^USETMAXREG\.TRY_ALLOC/ {
    found[kernel, "USETMAXREG.TRY_ALLOC"] = 1
}

opcode ~ /^USETMAXREG\.DEALLOC/ {
    found[kernel, "USETMAXREG.DEALLOC"] = 1
}

# Stops at the first mistake, because others follow from it.
function check_groups(kernel,    where, most, all, i, depth, depth_list) {
    where = source[kernel] ", " kernel ": "
    if (commits[kernel] == 0) {
        complain(where "wgmma without commit_group; end each group of them with ptx::wgmma_commit_group")
        return
    }
    if (open[kernel] > 0) {
        complain(where open[kernel] " HGMMA after the last gsb0 belong to no group; end each group with ptx::wgmma_commit_group")
        return
    }
    if (found_size[kernel] < asked_size[kernel]) {
        complain(where "wgmma serialised, gsb0 ends groups of " found_size[kernel] ", in the source the smallest has " \
            asked_size[kernel] "; touch accumulators only after wait_group<0> and inside the consumers' branch, and call no function")
        return
    }
    all = split(depths[kernel], depth_list, " ")
    for (i = 1; i <= all; i++) {
        depth = depth_list[i]
        if (!((kernel, depth) in found_wait)) {
            complain(where "wait_group<" depth "> became no WARPGROUP.DEPBAR.LE gsb0, " depth \
                "; wait on every path from wgmma to what uses its result")
            return
        }
    }
    # Loops are unrolled: what belongs to a group is repeated with it.
    most = waits[kernel] * (groups[kernel] > commits[kernel] ? groups[kernel] / commits[kernel] : 1)
    if (found_waits[kernel] > most) {
        complain(where found_waits[kernel] " WARPGROUP.DEPBAR for " groups[kernel] " groups, expected " int(most) \
            " at most; find those that ptxas added in the listing and what they protect in the source")
    }
}

function check(kernel,    registers) {
    if (!(kernel in listed)) {
        complain(source[kernel] ", " kernel ": not in the listing of the machine code; delete it and build anew")
        return
    }
    registers = "give it both numbers of __launch_bounds__, and compile without -rdc and -G"
    kept(kernel, "setmaxnreg.inc", "USETMAXREG.TRY_ALLOC", registers)
    kept(kernel, "setmaxnreg.dec", "USETMAXREG.DEALLOC", registers)
    kept(kernel, "tensor load", "UTMALDG", "compile it for sm_90a")
    kept(kernel, "multicast load", "UTMALDG.MULTICAST", "compile it for sm_90a")
    kept(kernel, "tensor store", "UTMASTG", "compile it for sm_90a")
    kept(kernel, "wgmma", "HGMMA", "use what it computes")
    if (local[kernel] > 0) {
        complain(source[kernel] ", " kernel ": " local[kernel] " accesses to local memory (LDL, STL); index arrays by" \
            " constants only, unroll the loops over them, pass tensor maps as __grid_constant__")
    }
    if (must[kernel]) {
        need(kernel, "wgmma", "multiply with ptx::wgmma_bf16 or ptx::wgmma_f16")
        need(kernel, "tensor load", "load through a tensor map with ptx::tma_load_2d")
        # The decode path has few results.
        if (kernel !~ /^decode_/) {
            need(kernel, "tensor store", "store through a tensor map with ptx::tma_store_2d")
        }
        if (kernel in clustered) {
            need(kernel, "multicast load", "its blocks form clusters, so load what they share with ptx::tma_load_2d_multicast")
        }
    }
    if ((kernel, "wgmma") in wanted && products[kernel] > 0) {
        check_groups(kernel)
    }
}

END {
    if (count == 0) {
        complain("no kernel in the PTX; nvcc -ptx no longer writes what is expected")
    }
    for (i = 1; i <= count; i++) {
        check(names[i])
    }
    if (failures > 0) {
        exit 1
    }
    print "# kernel, HGMMA, groups of them, waits for groups, UTMALDG, of them multicast, UTMASTG, USETMAXREG, R2UR, source"
    for (i = 1; i <= count; i++) {
        kernel = names[i]
        printf "%-40s %4d %3d %3d %4d %3d %3d %2d %4d  %s\n", kernel, products[kernel], groups[kernel], found_waits[kernel],
            tally[kernel, "UTMALDG"], tally[kernel, "MULTICAST"], tally[kernel, "UTMASTG"], tally[kernel, "USETMAXREG"],
            tally[kernel, "R2UR"], source[kernel]
    }
}
