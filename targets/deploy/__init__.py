# SPDX-License-Identifier: Apache-2.0
"""Build folders of CPU targets: what a device needs to run a network, without Python."""
