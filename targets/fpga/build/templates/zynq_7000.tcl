create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps
if {[get_property board_part [current_project]] ne ""} {
    apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
        -config {make_external "FIXED_IO, DDR" apply_board_preset 1} [get_bd_cells ps]
}
set_property -dict [list \
    CONFIG.PCW_USE_M_AXI_GP0 1 CONFIG.PCW_USE_S_AXI_HP0 1 \
    CONFIG.PCW_S_AXI_HP0_DATA_WIDTH {@PORT_BITS@} CONFIG.PCW_USE_FABRIC_INTERRUPT 1 \
    CONFIG.PCW_IRQ_F2P_INTR 1 CONFIG.PCW_EN_CLK0_PORT 1 \
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ {@MHZ@}] [get_bd_cells ps]
set ps_clock ps/FCLK_CLK0
set ps_reset ps/FCLK_RESET0_N
set ps_lite ps/M_AXI_GP0
set ps_memory ps/S_AXI_HP0
set ps_clocks {ps/M_AXI_GP0_ACLK ps/S_AXI_HP0_ACLK}
set ps_irq ps/IRQ_F2P
