# SPDX-License-Identifier: Apache-2.0
"""Names that reach Verilog, C, Tcl or the file system: letters, digits and underscores only."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Iterable

_RESERVED = frozenset(
    """
    always and assign auto begin bool break buf bufif case casex casez char cell class config
    const continue deassign default define defparam design disable do double edge else end endcase
    endconfig endfunction endgenerate endmodule endprimitive endspecify endtable endtask enum event
    export extern final float for force forever fork function generate genvar goto if ifdef import
    include initial inline inout input instance int integer interface join large library long logic
    localparam macromodule main medium module nand negedge new nmos nor not notif or output
    package parameter pmos posedge primitive proc program property pull pulldown pullup real
    realtime reg register release repeat restrict return rnmos rpmos rtran rtranif scalared set
    short signed sizeof small source specify specparam static string strong struct supply switch
    table task time tran tri triand trior trireg typedef union unsigned use vectored void volatile
    wait wand weak while wire wor xnor xor
    """.split()  # noqa: SIM905 - a list of a hundred strings is no easier to read
)
"""Words of Verilog, SystemVerilog, C and Tcl that are no names there."""
LONGEST = 48


def identifier(name: str, prefix: str = "n") -> str:
    """A plain identifier for any text: other characters become underscores, reserved words and
    leading digits get ``prefix``, long names are cut and marked by a checksum.

    >>> identifier("conv-1; rm -rf /"), identifier("module"), identifier("3x3")
    ('conv_1__rm__rf__', 'n_module', 'n_3x3')
    """
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if len(word) > LONGEST:
        word = f"{word[: LONGEST - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    if not re.match(r"[A-Za-z]", word) or word.lower() in _RESERVED or keyword.iskeyword(word):
        word = f"{prefix}_{word}"
    return word


def identifiers(names: Iterable[str], prefix: str = "n") -> dict[str, str]:
    """An identifier for each name, different ones for different names (case does not tell apart:
    file systems and Tcl tools may fold it)."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        word = base = identifier(name, prefix)
        number = 1
        while word.lower() in taken:
            number += 1
            word = f"{base}_{number}"
        taken.add(word.lower())
        found[name] = word
    return found


def c_string(text: str) -> str:
    """A C string literal: printable ASCII as it is, everything else in octal.

    >>> c_string('a"b')
    '"a\\\\042b"'
    """
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{plain}"'
