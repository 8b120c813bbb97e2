# SPDX-License-Identifier: Apache-2.0
# Packages the accelerator with Vivado's own packager, an alternative to ip/component.xml:
#   vivado -mode batch -source ip/package_ip.tcl       (from the folder of this build)
set here [file normalize [file dirname [info script]]]
create_project -force -in_memory -part {@PART@} package
read_verilog [file join $here .. {@VERILOG@}]
set_property top {@NAME@} [current_fileset]
ipx::package_project -root_dir [file join $here packaged] -vendor {codesign} -library {accelerator} \
    -taxonomy {/UserIP} -import_files -set_current true -force
set core [ipx::current_core]
set_property name {@NAME@} $core
set_property version {1.0} $core
ipx::infer_bus_interfaces xilinx.com:interface:aximm_rtl:1.0 $core
ipx::infer_bus_interface clk xilinx.com:signal:clock_rtl:1.0 $core
ipx::infer_bus_interface rst xilinx.com:signal:reset_rtl:1.0 $core
ipx::infer_bus_interface irq xilinx.com:signal:interrupt_rtl:1.0 $core
ipx::associate_bus_interfaces -busif m_axi -clock clk $core
ipx::associate_bus_interfaces -busif s_axi -clock clk $core
set_property value ACTIVE_HIGH [ipx::add_bus_parameter POLARITY \
    [ipx::get_bus_interfaces rst -of_objects $core]]
ipx::check_integrity $core
ipx::save_core $core
