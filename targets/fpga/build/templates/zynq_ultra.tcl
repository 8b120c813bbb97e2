create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e ps
if {[get_property board_part [current_project]] ne ""} {
    apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e \
        -config {apply_board_preset 1} [get_bd_cells ps]
}
set_property -dict [list \
    CONFIG.PSU__USE__M_AXI_GP0 1 CONFIG.PSU__USE__M_AXI_GP1 0 CONFIG.PSU__USE__M_AXI_GP2 0 \
    CONFIG.PSU__USE__S_AXI_GP2 1 CONFIG.PSU__SAXIGP2__DATA_WIDTH {@PORT_BITS@} \
    CONFIG.PSU__USE__IRQ0 1 CONFIG.PSU__FPGA_PL0_ENABLE 1 \
    CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ {@MHZ@}] [get_bd_cells ps]
set ps_clock ps/pl_clk0
set ps_reset ps/pl_resetn0
set ps_lite ps/M_AXI_HPM0_FPD
set ps_memory ps/S_AXI_HP0_FPD
set ps_clocks {ps/maxihpm0_fpd_aclk ps/saxihp0_fpd_aclk}
set ps_irq ps/pl_ps_irq0
