# Reads `objdump -d` of a tier of the CPU library: a tile must have as many multiply-adds as its name says, and every sum in
# a register. Set lanes: F32 in a vector.

function finish() {
    if (tile == "") {
        return
    }
    vectors = panels * 16 / lanes
    want = rows * vectors * (type == "BF16" ? 2 : 1)
    if (products != want) {
        printf "%s: expected %d multiply-adds in the loop, found %d\n", tile, want, products
        wrong = 1
    }
    if (spills > 0) {
        printf "%s: %d vectors go through the stack; a tile of this size does not fit in the registers\n", tile, spills
        wrong = 1
    }
    tiles++
}

/^[0-9a-f]+ <.*>:$/ {
    finish()
    tile = ""
    name = $2
    gsub(/[<>:]/, "", name)
    if (name ~ /^tile_[A-Z0-9]+_[0-9]+_[0-9]+$/) {
        split(name, part, "_")
        tile = name
        type = part[2]
        rows = part[3]
        panels = part[4]
        products = 0
        spills = 0
    }
}

tile != "" && /vfmadd231ps|vpdpbusd|vpmaddubsw/ { products++ }
tile != "" && /[xyz]mm.*\((%rsp|%rbp)\)|\((%rsp|%rbp)\).*[xyz]mm/ { spills++ }

END {
    finish()
    if (tiles == 0) {
        print "no tiles found"
        wrong = 1
    }
    exit wrong
}
