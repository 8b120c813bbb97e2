# SPDX-License-Identifier: Apache-2.0
# From this build to a bitstream with Vivado (not run where this file was made):
#   vivado -mode batch -source vivado/design.tcl       (from the folder of this build)
# Leaves vivado/out/design.bit, design.hwh (both for PYNQ) and design.xsa (for Vitis).
set here [file normalize [file dirname [info script]]]
set out [file join $here out]
create_project -force codesign $out -part {@PART@}
foreach board [get_board_parts -quiet -latest_file_version {@BOARD_PART@}] {
    set_property board_part $board [current_project]
}
if {[get_property board_part [current_project]] eq ""} {
    puts "WARNING: no board files for @BOARD@ are installed: DDR and MIO settings of the processing\
 system must be set by hand"
}
set_property ip_repo_paths [file join $here .. ip] [current_project]
update_ip_catalog
create_bd_design design
@PROCESSING_SYSTEM@
create_bd_cell -type ip -vlnv codesign:accelerator:@NAME@:1.0 accelerator
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect control
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect memory
foreach cell {control memory} { set_property CONFIG.NUM_SI 1 [get_bd_cells $cell] }
set clocks {accelerator/clk reset/slowest_sync_clk control/aclk memory/aclk}
foreach pin [concat $clocks $ps_clocks] {
    connect_bd_net [get_bd_pins $ps_clock] [get_bd_pins $pin]
}
connect_bd_net [get_bd_pins $ps_reset] [get_bd_pins reset/ext_reset_in]
connect_bd_net [get_bd_pins reset/peripheral_reset] [get_bd_pins accelerator/rst]
foreach pin {control/aresetn memory/aresetn} {
    connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins $pin]
}
connect_bd_intf_net [get_bd_intf_pins $ps_lite] [get_bd_intf_pins control/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins control/M00_AXI] [get_bd_intf_pins accelerator/s_axi]
connect_bd_intf_net [get_bd_intf_pins accelerator/m_axi] [get_bd_intf_pins memory/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins memory/M00_AXI] [get_bd_intf_pins $ps_memory]
connect_bd_net [get_bd_pins accelerator/irq] [get_bd_pins $ps_irq]
assign_bd_address
foreach segment [get_bd_addr_segs -of_objects [get_bd_addr_spaces ps/Data]] {
    if {[string match "*accelerator*" $segment]} { set_property offset @REGISTERS@ $segment }
}
validate_bd_design
save_bd_design
set wrapper [make_wrapper -files [get_files design.bd] -top]
add_files -norecurse $wrapper
add_files -fileset constrs_1 -norecurse [file join $here .. constraints timing.xdc]
set_property top design_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} { error "implementation failed" }
open_run impl_1
report_utilization -file [file join $out utilization.txt]
report_timing_summary -file [file join $out timing.txt]
if {[get_property STATS.WNS [get_runs impl_1]] < 0} { puts "WARNING: the clock is not met" }
file copy -force [glob [file join $out codesign.runs impl_1 *.bit]] [file join $out design.bit]
file copy -force [lindex [glob [file join $out codesign.gen sources_1 bd design hw_handoff *.hwh]] 0] \
    [file join $out design.hwh]
write_hw_platform -fixed -include_bit -force [file join $out design.xsa]
