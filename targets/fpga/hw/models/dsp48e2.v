// SPDX-License-Identifier: Apache-2.0
// Behaviour of a DSP48E2 in the modes the generator uses (UG579): P = (A + D) * B + Z with
// Z = 0, C or PCIN / 2^17; A, B with one or two registers, AD, D, C, M and P with one.
// Anything else stops the simulation.
module DSP48E2 #(
    parameter A_INPUT = "DIRECT", B_INPUT = "DIRECT", USE_MULT = "MULTIPLY", USE_SIMD = "ONE48",
    parameter AMULTSEL = "A", BMULTSEL = "B", PREADDINSEL = "A",
    parameter integer AREG = 1, ACASCREG = 1, BREG = 1, BCASCREG = 1, ADREG = 1, DREG = 1,
    parameter integer CREG = 1, MREG = 1, PREG = 1, INMODEREG = 1, OPMODEREG = 1,
    parameter integer ALUMODEREG = 1, CARRYINREG = 1, CARRYINSELREG = 1
) (
    input CLK, input [29:0] A, ACIN, input [17:0] B, BCIN, input [26:0] D, input [47:0] C, PCIN,
    input [4:0] INMODE, input [8:0] OPMODE, input [3:0] ALUMODE, input CARRYIN,
    input [2:0] CARRYINSEL, input CARRYCASCIN, MULTSIGNIN,
    input CEA1, CEA2, CEB1, CEB2, CEC, CED, CEAD, CEM, CEP, CEALUMODE, CECARRYIN, CECTRL, CEINMODE,
    input RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output [47:0] P, PCOUT
);
    reg signed [26:0] a1 = 0, a2 = 0, d = 0, ad = 0;
    reg signed [17:0] b1 = 0, b2 = 0;
    reg [47:0] c = 0, p = 0;
    reg signed [44:0] m = 0;
    wire signed [26:0] multiplicand = AMULTSEL == "AD" ? ad : a2;
    wire [47:0] cascade = {{17{PCIN[47]}}, PCIN[47:17]};
    wire [47:0] z = OPMODE[6:4] == 3'b011 ? c : OPMODE[6:4] == 3'b101 ? cascade : 48'd0;
    always @(posedge CLK) begin
        if (CEA1) a1 <= A[26:0];
        if (CEA2) a2 <= AREG == 2 ? a1 : A[26:0];
        if (CEB1) b1 <= B;
        if (CEB2) b2 <= BREG == 2 ? b1 : B;
        if (CED) d <= D;
        if (CEAD) ad <= d + a2;
        if (CEC) c <= C;
        if (CEM) m <= multiplicand * b2;
        if (CEP) p <= {{3{m[44]}}, m} + z;
    end
    assign P = p;
    assign PCOUT = p;
    wire known = A_INPUT == "DIRECT" && B_INPUT == "DIRECT" && USE_MULT == "MULTIPLY"
        && USE_SIMD == "ONE48" && BMULTSEL == "B" && PREADDINSEL == "A"
        && (AREG == 1 || AREG == 2) && ACASCREG == AREG && (BREG == 1 || BREG == 2)
        && BCASCREG == BREG && ADREG == 1 && DREG == 1 && CREG == 1 && MREG == 1 && PREG == 1
        && INMODEREG == 0 && OPMODEREG == 0 && ALUMODEREG == 0 && CARRYINREG == 0
        && CARRYINSELREG == 0 && !(AMULTSEL == "AD" && AREG == 2)
        && INMODE == (AMULTSEL == "AD" ? 5'b00100 : 5'b00000)
        && (OPMODE == 9'b000110101 || OPMODE == 9'b001010101 || OPMODE == 9'b000000101)
        && ALUMODE == 0 && !CARRYIN && CARRYINSEL == 0
        && !(RSTA | RSTALLCARRYIN | RSTALUMODE | RSTB | RSTC | RSTCTRL | RSTD | RSTINMODE | RSTM
             | RSTP);
    always @(posedge CLK)
        if (!known) begin
            $display("DSP48E2 model: a mode that it does not have");
            $finish;
        end
endmodule
