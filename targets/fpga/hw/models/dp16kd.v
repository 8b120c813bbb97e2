// SPDX-License-Identifier: Apache-2.0
// Behaviour of the ECP5's block RAM as yosys instantiates it: all clocks rising, chip selects tied;
// with output registers (OUTREG) as build/ecp5_netlist.py puts them in, never reset. Written from the Lattice memory guide (FPGA-TN-02204) and yosys's brams_map.v.
// Each word of 18 bits is two lanes of 9; widths of 4, 2 and 1 use 8 bits of a lane. Width 36 (port A
// writes, port B reads) joins two neighbouring words.
module DP16KD(
  input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
  input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
  input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
  input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
  input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
  output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
  parameter DATA_WIDTH_A = 18;
  parameter REGMODE_A = "NOREG";
  parameter WRITEMODE_A = "NORMAL";
  parameter CSDECODE_A = "0b000";
  parameter CLKAMUX = "CLKA";
  parameter DATA_WIDTH_B = 18;
  parameter REGMODE_B = "NOREG";
  parameter WRITEMODE_B = "NORMAL";
  parameter CSDECODE_B = "0b000";
  parameter CLKBMUX = "CLKB";
  parameter RESETMODE = "SYNC";
  parameter ASYNC_RESET_RELEASE = "SYNC";
  parameter GSR = "ENABLED";
  parameter INITVAL_00 = 320'b0;
  parameter INITVAL_01 = 320'b0;
  parameter INITVAL_02 = 320'b0;
  parameter INITVAL_03 = 320'b0;
  parameter INITVAL_04 = 320'b0;
  parameter INITVAL_05 = 320'b0;
  parameter INITVAL_06 = 320'b0;
  parameter INITVAL_07 = 320'b0;
  parameter INITVAL_08 = 320'b0;
  parameter INITVAL_09 = 320'b0;
  parameter INITVAL_0A = 320'b0;
  parameter INITVAL_0B = 320'b0;
  parameter INITVAL_0C = 320'b0;
  parameter INITVAL_0D = 320'b0;
  parameter INITVAL_0E = 320'b0;
  parameter INITVAL_0F = 320'b0;
  parameter INITVAL_10 = 320'b0;
  parameter INITVAL_11 = 320'b0;
  parameter INITVAL_12 = 320'b0;
  parameter INITVAL_13 = 320'b0;
  parameter INITVAL_14 = 320'b0;
  parameter INITVAL_15 = 320'b0;
  parameter INITVAL_16 = 320'b0;
  parameter INITVAL_17 = 320'b0;
  parameter INITVAL_18 = 320'b0;
  parameter INITVAL_19 = 320'b0;
  parameter INITVAL_1A = 320'b0;
  parameter INITVAL_1B = 320'b0;
  parameter INITVAL_1C = 320'b0;
  parameter INITVAL_1D = 320'b0;
  parameter INITVAL_1E = 320'b0;
  parameter INITVAL_1F = 320'b0;
  parameter INITVAL_20 = 320'b0;
  parameter INITVAL_21 = 320'b0;
  parameter INITVAL_22 = 320'b0;
  parameter INITVAL_23 = 320'b0;
  parameter INITVAL_24 = 320'b0;
  parameter INITVAL_25 = 320'b0;
  parameter INITVAL_26 = 320'b0;
  parameter INITVAL_27 = 320'b0;
  parameter INITVAL_28 = 320'b0;
  parameter INITVAL_29 = 320'b0;
  parameter INITVAL_2A = 320'b0;
  parameter INITVAL_2B = 320'b0;
  parameter INITVAL_2C = 320'b0;
  parameter INITVAL_2D = 320'b0;
  parameter INITVAL_2E = 320'b0;
  parameter INITVAL_2F = 320'b0;
  parameter INITVAL_30 = 320'b0;
  parameter INITVAL_31 = 320'b0;
  parameter INITVAL_32 = 320'b0;
  parameter INITVAL_33 = 320'b0;
  parameter INITVAL_34 = 320'b0;
  parameter INITVAL_35 = 320'b0;
  parameter INITVAL_36 = 320'b0;
  parameter INITVAL_37 = 320'b0;
  parameter INITVAL_38 = 320'b0;
  parameter INITVAL_39 = 320'b0;
  parameter INITVAL_3A = 320'b0;
  parameter INITVAL_3B = 320'b0;
  parameter INITVAL_3C = 320'b0;
  parameter INITVAL_3D = 320'b0;
  parameter INITVAL_3E = 320'b0;
  parameter INITVAL_3F = 320'b0;

  reg [17:0] words [0:1023];
  integer at;
  task fill(input [5:0] block, input [319:0] value);
    for (at = 0; at < 16; at = at + 1) words[block * 16 + at] = value[at * 20 +: 18];
  endtask
  initial begin
    fill(6'd0, INITVAL_00);
    fill(6'd1, INITVAL_01);
    fill(6'd2, INITVAL_02);
    fill(6'd3, INITVAL_03);
    fill(6'd4, INITVAL_04);
    fill(6'd5, INITVAL_05);
    fill(6'd6, INITVAL_06);
    fill(6'd7, INITVAL_07);
    fill(6'd8, INITVAL_08);
    fill(6'd9, INITVAL_09);
    fill(6'd10, INITVAL_0A);
    fill(6'd11, INITVAL_0B);
    fill(6'd12, INITVAL_0C);
    fill(6'd13, INITVAL_0D);
    fill(6'd14, INITVAL_0E);
    fill(6'd15, INITVAL_0F);
    fill(6'd16, INITVAL_10);
    fill(6'd17, INITVAL_11);
    fill(6'd18, INITVAL_12);
    fill(6'd19, INITVAL_13);
    fill(6'd20, INITVAL_14);
    fill(6'd21, INITVAL_15);
    fill(6'd22, INITVAL_16);
    fill(6'd23, INITVAL_17);
    fill(6'd24, INITVAL_18);
    fill(6'd25, INITVAL_19);
    fill(6'd26, INITVAL_1A);
    fill(6'd27, INITVAL_1B);
    fill(6'd28, INITVAL_1C);
    fill(6'd29, INITVAL_1D);
    fill(6'd30, INITVAL_1E);
    fill(6'd31, INITVAL_1F);
    fill(6'd32, INITVAL_20);
    fill(6'd33, INITVAL_21);
    fill(6'd34, INITVAL_22);
    fill(6'd35, INITVAL_23);
    fill(6'd36, INITVAL_24);
    fill(6'd37, INITVAL_25);
    fill(6'd38, INITVAL_26);
    fill(6'd39, INITVAL_27);
    fill(6'd40, INITVAL_28);
    fill(6'd41, INITVAL_29);
    fill(6'd42, INITVAL_2A);
    fill(6'd43, INITVAL_2B);
    fill(6'd44, INITVAL_2C);
    fill(6'd45, INITVAL_2D);
    fill(6'd46, INITVAL_2E);
    fill(6'd47, INITVAL_2F);
    fill(6'd48, INITVAL_30);
    fill(6'd49, INITVAL_31);
    fill(6'd50, INITVAL_32);
    fill(6'd51, INITVAL_33);
    fill(6'd52, INITVAL_34);
    fill(6'd53, INITVAL_35);
    fill(6'd54, INITVAL_36);
    fill(6'd55, INITVAL_37);
    fill(6'd56, INITVAL_38);
    fill(6'd57, INITVAL_39);
    fill(6'd58, INITVAL_3A);
    fill(6'd59, INITVAL_3B);
    fill(6'd60, INITVAL_3C);
    fill(6'd61, INITVAL_3D);
    fill(6'd62, INITVAL_3E);
    fill(6'd63, INITVAL_3F);
  end

  wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
  wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
  wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
  reg [17:0] doa = 0, dob = 0;
  reg [17:0] doa_register = 0, dob_register = 0;
  wire clock_a = DATA_WIDTH_B == 36 ? CLKB : CLKA;
  always @(posedge clock_a) if (OCEA) doa_register <= doa;
  always @(posedge CLKB) if (OCEB) dob_register <= dob;
  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = REGMODE_A == "OUTREG" ? doa_register : doa;
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = REGMODE_B == "OUTREG" ? dob_register : dob;

  // lowest bit of an access in its word
  function [4:0] low(input integer width, input [13:0] address);
    case (width)
      9: low = address[3] * 9;
      4: low = address[3] * 9 + address[2] * 4;
      2: low = address[3] * 9 + address[2:1] * 2;
      1: low = address[3] * 9 + address[2:0];
      default: low = 0;
    endcase
  endfunction
  function [17:0] mask(input integer width, input [13:0] address);
    case (width)
      18: mask = {{9{address[1]}}, {9{address[0]}}};
      default: mask = ((18'd1 << width) - 18'd1) << low(width, address);
    endcase
  endfunction
  function [17:0] merged(input integer width, input [13:0] address, input [17:0] old, input [17:0] now);
    merged = (old & ~mask(width, address)) | ((now << low(width, address)) & mask(width, address));
  endfunction
  function [17:0] seen(input integer width, input [13:0] address, input [17:0] word);
    seen = width == 18 ? word : (word >> low(width, address)) & ((18'd1 << width) - 18'd1);
  endfunction

  generate
    if (DATA_WIDTH_A == 36) begin : pseudo
      always @(posedge CLKA) if (CEA && WEA) begin
        words[{ada[13:5], 1'b0}] <= merged(18, {12'd0, ada[1:0]}, words[{ada[13:5], 1'b0}], dia);
        words[{ada[13:5], 1'b1}] <= merged(18, {12'd0, ada[3:2]}, words[{ada[13:5], 1'b1}], dib);
      end
      always @(posedge CLKB) if (RSTB) begin
        doa <= 0;
        dob <= 0;
      end else if (CEB) begin
        if (DATA_WIDTH_B == 36) begin
          doa <= words[{adb[13:5], 1'b0}];
          dob <= words[{adb[13:5], 1'b1}];
        end else dob <= seen(DATA_WIDTH_B, adb, words[adb[13:4]]);
      end
    end else begin : dual
      always @(posedge CLKA) if (RSTA) doa <= 0;
      else if (CEA) begin
        if (WEA) words[ada[13:4]] <= merged(DATA_WIDTH_A, ada, words[ada[13:4]], dia);
        if (!WEA || WRITEMODE_A == "READBEFOREWRITE") doa <= seen(DATA_WIDTH_A, ada, words[ada[13:4]]);
        else if (WRITEMODE_A == "WRITETHROUGH") doa <= dia;
      end
      always @(posedge CLKB) if (RSTB) dob <= 0;
      else if (CEB) begin
        if (WEB) words[adb[13:4]] <= merged(DATA_WIDTH_B, adb, words[adb[13:4]], dib);
        if (!WEB || WRITEMODE_B == "READBEFOREWRITE") dob <= seen(DATA_WIDTH_B, adb, words[adb[13:4]]);
        else if (WRITEMODE_B == "WRITETHROUGH") dob <= dib;
      end
    end
  endgenerate
endmodule
