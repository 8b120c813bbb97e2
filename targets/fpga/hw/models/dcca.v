// SPDX-License-Identifier: Apache-2.0
// The ECP5's global buffer, which yosys has as a black box only.
module DCCA(input CLKI, input CE, output CLKO);
  assign CLKO = CLKI & CE;
endmodule
